"""How does a question about a file become a script that ran? Written, run, and mended thrice.

The model sees the file's profile, never the file. Each try is kept with what came of it; what went
wrong goes back to the model. At the end it is asked for a conclusion from what the script printed,
and the numbers of that which were not printed are marked.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from expertmesh.agent.loop.clip import clipped
from expertmesh.agent.sandbox.policy import Limits
from expertmesh.agent.web.marking import marked
from expertmesh.assistants.asking.extract import code_of
from expertmesh.assistants.asking.model import Messages, TextModel
from expertmesh.assistants.asking.structured import UselessAnswerError, whole
from expertmesh.assistants.data.claims import Number, unfounded
from expertmesh.assistants.data.judging import Fault, fault_of, result_text
from expertmesh.assistants.data.produced import Produced
from expertmesh.assistants.data.workbench import LIMITS, Ran, Workbench
from expertmesh.assistants.prompts import prompt
from expertmesh.assistants.tables.describe import describe
from expertmesh.assistants.tables.profile import Profile
from expertmesh.assistants.tables.reading import reading
from expertmesh.assistants.watch import Watching
from expertmesh.clients.chat_stream import ChatError

MAX_REPAIRS = 3
_RESULT_BYTES = 8 << 10
_OUTPUT_BYTES = 16 << 10
_PROFILE_SHARE = 0.75
"""Characters of the profile for each token of the context: a fifth of it and less."""
_ROOM = 1.5
"""Characters of a conversation for each token of the context: about half of it."""
_NO_CODE = Fault("the answer holds no Python script in a fenced block")
_CUT = Fault("the answer was cut off before the script was complete; write a shorter one")

KeepTry = Callable[[int, str, str], None]
"""Number of the try, script, and what came of it."""


@dataclass(frozen=True)
class Try:
    """A script, and why it did not do; None for the one that did."""

    number: int
    script: str
    fault: Fault | None


@dataclass
class Analysis:
    """What came of a goal."""

    goal: str
    language: str
    installed: Mapping[str, str]
    tries: list[Try] = field(default_factory=list)
    output: str = ""
    """What the script printed that did."""
    output_is_clipped: bool = False
    seconds: float = 0.0
    produced: Sequence[Produced] = ()
    more_files: int = 0
    conclusion: str = ""
    no_conclusion: str = ""
    """Why there is none, if there is none."""
    unfounded: Sequence[Number] = ()
    """Numbers of the conclusion that were not printed."""
    completion_tokens: int = 0

    @property
    def succeeded(self) -> bool:
        return bool(self.tries) and self.tries[-1].fault is None

    @property
    def script(self) -> str:
        return self.tries[-1].script if self.tries else ""

    @property
    def has_plots(self) -> bool:
        """Whether scripts find a library that draws."""
        return "matplotlib" in self.installed


class Analyst:
    """Has a model write scripts for one file, and runs them on a workbench."""

    def __init__(
        self,
        model: TextModel,
        profile: Profile,
        bench: Workbench,
        *,
        watching: Watching | None = None,
    ):
        self._model = model
        self._profile = profile
        self._bench = bench
        self._watching = watching or Watching()

    async def analyse(
        self, goal: str, *, language: str, keep_try: KeepTry = lambda number, script, result: None
    ) -> Analysis:
        """`language`: "en" or "zh". Not succeeding is no error.

        Raises ChatError, OSError and SandboxUnavailableError.
        """
        done = Analysis(goal, language, await self._bench.installed())
        question = first_question(
            goal,
            language,
            described=self._described(language),
            read_by=reading(self._profile.facts, self._bench.data_name, "pandas" in done.installed),
            installed=done.installed,
            limits=self._bench.limits,
        )
        messages = list(question)
        for number in range(1, MAX_REPAIRS + 2):
            what = "writing the script" if number == 1 else f"mending the script, {number - 1} of 3"
            self._watching.begins(what)
            answer = await self._model.ask(messages, on_piece=self._watching.piece)
            self._watching.answered(answer.reply)
            done.completion_tokens += answer.reply.completion_tokens
            script = (code_of(answer.text) or "") if not answer.was_cut else ""
            if script:
                fault, result, ran = await self._run(script)
            else:
                fault, ran = _CUT if answer.was_cut else _NO_CODE, None
                result = clipped(answer.text, _RESULT_BYTES)
            done.tries.append(Try(number, script, fault))
            keep_try(number, script, f"{fault or 'it ran'}\n\n{result}\n")
            if fault is None and ran is not None:
                await self._conclude(done, ran)
                return done
            self._watching.note(f"try {number}: {fault}")
            failure = self._failure(script, fault or _NO_CODE, result, language)
            said = {**answer.reply.as_message(), "content": answer.text or "..."}
            messages = [*self._kept(question, messages, failure), said, failure]
        return done

    async def _run(self, script: str) -> tuple[Fault | None, str, Ran]:
        self._watching.begins("running the script")
        ran = await self._bench.run(script, self._watching.says)
        return fault_of(ran, script), result_text(ran, self._bench.limits), ran

    async def _conclude(self, done: Analysis, ran: Ran) -> None:
        done.output = ran.outcome.stdout
        done.output_is_clipped = ran.outcome.clipped
        done.seconds = ran.outcome.seconds
        done.produced, done.more_files = ran.produced, ran.more_files
        self._watching.begins("drawing the conclusion")
        output = marked(clipped(done.output, _OUTPUT_BYTES), "the script's output")
        told = prompt("conclude", done.language, goal=done.goal, output=output)
        try:
            question = [{"role": "user", "content": told}]
            answer = whole(await self._model.ask(question, on_piece=self._watching.piece))
        except (ChatError, UselessAnswerError) as error:
            done.no_conclusion = str(error)
            return
        self._watching.answered(answer.reply)
        done.completion_tokens += answer.reply.completion_tokens
        done.conclusion = answer.text.strip()
        if not done.conclusion:
            done.no_conclusion = "the model's answer was empty"
        names = [one.name for one in self._profile.columns]
        counts = [str(self._profile.num_rows), str(len(names))]
        done.unfounded = unfounded(done.conclusion, [done.output, done.goal, *names, *counts])

    def _failure(self, script: str, fault: Fault, result: str, language: str) -> dict[str, Any]:
        """The script is in the model's own answer before it."""
        name = "mend_script" if script else "no_script"
        printed = marked(clipped(result, _RESULT_BYTES), "the script's run")
        return {"role": "user", "content": prompt(name, language, fault=fault.what, result=printed)}

    def _kept(self, question: Messages, messages: Messages, new: dict[str, Any]) -> Messages:
        """All that was said; in a small context only the question, besides the last try."""
        length = self._model.max_model_len
        size = sum(len(str(one["content"])) for one in [*messages, new])
        return question if length is not None and size > _ROOM * length else messages

    def _described(self, language: str) -> str:
        length = self._model.max_model_len
        room = {} if length is None else {"most_chars": min(6_000, int(_PROFILE_SHARE * length))}
        return marked(describe(self._profile, language, **room), f"the file {self._profile.name}")


def first_question(
    goal: str,
    language: str,
    *,
    described: str,
    read_by: str,
    installed: Mapping[str, str],
    limits: Limits = LIMITS,
) -> Messages:
    """What a model is told before its first script. `read_by`: statements, if they are known."""
    libraries = ", ".join(f"{name} {version}".strip() for name, version in installed.items())
    plots = "analyse_plots" if "matplotlib" in installed else "analyse_no_plots"
    system = prompt(
        "analyse",
        language,
        libraries=libraries,
        plots=prompt(plots, language),
        seconds=f"{limits.wall_s:.0f}",
        memory=f"{limits.memory_bytes >> 20} MiB",
    )
    how = f"\n\n{prompt('analyse_reading', language, reading=read_by)}" if read_by else ""
    user = f"{goal}\n\n{described}{how}"
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def first_line(goal: str) -> str:
    """For a heading."""
    return re.sub(r"\s+", " ", goal).strip()[:100]
