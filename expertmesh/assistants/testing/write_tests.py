"""How are tests written that hold? The model writes them, and they are run.

Kept is what passes on the code as it is, and notices at least one of the mistakes that are made in
a copy of it on purpose.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from expertmesh.agent.sandbox.policy import Limits
from expertmesh.assistants.asking.extract import code_of
from expertmesh.assistants.asking.model import Messages, TextModel
from expertmesh.assistants.asking.structured import UselessAnswerError, whole
from expertmesh.assistants.prompts import prompt
from expertmesh.assistants.reviewing.passages import fenced
from expertmesh.assistants.testing.modules import Module
from expertmesh.assistants.testing.mutants import Mutant, mutants
from expertmesh.assistants.testing.pytest_runs import LIMITS, TestRun, run_tests
from expertmesh.assistants.testing.tests_text import fault_of, shown_source, without
from expertmesh.assistants.testing.workshop import Workshop
from expertmesh.assistants.watch import Watching
from expertmesh.clients.chat import Reply

ROUNDS = 3
"""So often is the model asked at most."""
MOST_MUTANTS = 20
_LEAST_WALL_S = 10.0
_TOLD = 10
"""So many mistakes that were not noticed are told to the model."""


@dataclass
class WrittenTests:
    """What came of it."""

    source: str
    tests: tuple[str, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    """Tests that fail on the code -> how. They are wrong, or the code is."""
    noticed: list[Mutant] = field(default_factory=list)
    missed: list[Mutant] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __str__(self) -> str:
        return self.source

    @property
    def holds(self) -> bool:
        """Whether they pass, and notice a mistake."""
        return bool(self.tests and self.noticed)

    def summary(self) -> str:
        count = f"{len(self.tests)} test{'' if len(self.tests) == 1 else 's'}"
        mistakes = len(self.noticed) + len(self.missed)
        return f"{count} pass; {len(self.noticed)} of {mistakes} mistakes made on purpose noticed"

    def as_json(self) -> dict[str, Any]:
        return {
            "tests": list(self.tests),
            "left_out": self.left_out,
            "mutants": len(self.noticed) + len(self.missed),
            "noticed": len(self.noticed),
            "missed": [
                {"line": one.line, "kind": one.kind, "before": one.before, "after": one.after}
                for one in self.missed
            ],
            "holds": self.holds,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }


class TestWriter:
    """Writes the tests of one module; use it once."""

    __test__ = False  # it is no class of tests, whatever its name begins with

    def __init__(
        self,
        model: TextModel,
        workshop: Workshop,
        module: Module,
        source: str,
        *,
        file: str,
        function: str | None = None,
        most_mutants: int = MOST_MUTANTS,
        language: str,
        watching: Watching,
    ):
        """`file`: where the tests are put in the workshop. Raises ValueError for a function that
        there is not, and SyntaxError."""
        self._model, self._workshop, self._module = model, workshop, module
        self._file, self._function = file, function
        self._source, self._language, self._watching = source, language, watching
        self._mutants = mutants(source, [function] if function else (), most_mutants)
        self._replies: list[Reply] = []

    async def write(self) -> WrittenTests:
        """Raises UselessAnswerError if no test passes, NoPytestError, ChatError."""
        messages = self._messages()
        best: tuple[str, TestRun] | None = None
        written: WrittenTests | None = None
        fault = ""
        for round_ in range(1, ROUNDS + 1):
            text = await self._ask(messages, round_)
            code = code_of(text) or text
            fault = fault_of(code)
            if fault:
                told = self._told("tests_unusable", fault=fault)
            else:
                run = await self._run(code)
                if best is None or len(run.passed) > len(best[1].passed):
                    best = code, run
                if run.ok:
                    written = await self._judged(code, run)
                    if written.holds or not self._mutants:
                        return written
                    told = self._told("tests_notice_nothing", mistakes=_listed(written.missed))
                else:
                    told = self._told("tests_fail", output=fenced(run.text()))
            messages += [{"role": "assistant", "content": text or "..."}, _user(told)]
        if best is None:
            raise UselessAnswerError(f"the model wrote no tests that can be run: {fault}")
        return written or await self._what_passes(*best)

    async def _what_passes(self, code: str, run: TestRun) -> WrittenTests:
        """The tests without those that fail on the code."""
        kept = without(code, run.failed)
        again = await self._run(kept) if run.passed else run
        if not again.ok:
            told = next(iter(run.failed.values()), "") or run.text().splitlines()[-1]
            raise UselessAnswerError(
                f"the model was asked {ROUNDS} times, and none of its tests passes on the code: "
                f"{told}"
            )
        written = await self._judged(kept, again)
        written.left_out = run.failed
        return written

    async def _judged(self, code: str, run: TestRun) -> WrittenTests:
        """With each mistake in turn. An endless loop counts as noticed, since a user sees it."""
        written = WrittenTests(code, run.passed)
        wall_s = max(_LEAST_WALL_S, 5 * run.outcome.seconds)
        limits = Limits(wall_s=wall_s, cpu_s=wall_s)
        self._watching.begins("making mistakes on purpose")
        try:
            for number, mutant in enumerate(self._mutants, 1):
                noticed = len(written.noticed)
                self._watching.says(f"{number} of {len(self._mutants)}, {noticed} noticed")
                self._workshop.write(self._module.file, mutant.source)
                tried = await self._run_file(limits, first_only=True)
                (written.missed if tried.outcome.ok else written.noticed).append(mutant)
        finally:
            self._workshop.write(self._module.file, self._source)
        written.prompt_tokens = sum(one.prompt_tokens for one in self._replies)
        written.completion_tokens = sum(one.completion_tokens for one in self._replies)
        return written

    async def _run(self, code: str) -> TestRun:
        self._watching.begins("running the tests")
        self._workshop.write(self._file, code)
        return await self._run_file()

    async def _run_file(self, limits: Limits | None = None, first_only: bool = False) -> TestRun:
        return await run_tests(
            self._workshop,
            self._file,
            imports=self._module.imports,
            limits=limits or LIMITS,
            first_only=first_only,
        )

    async def _ask(self, messages: Messages, round_: int) -> str:
        again = f", again ({round_} of at most {ROUNDS})" if round_ > 1 else ""
        self._watching.begins(f"writing tests for {self._module.file}{again}")
        answer = await self._model.ask(messages, on_piece=self._watching.piece)
        self._watching.answered(answer.reply)
        self._replies.append(answer.reply)
        return whole(answer).text

    def _messages(self) -> Messages:
        source = shown_source(self._source, self._function)
        user = prompt(
            "tests_for",
            self._language,
            what=self._function or self._module.file,
            module=self._module.name,
            code=fenced(source, "python"),
        )
        return [{"role": "system", "content": prompt("tests", self._language)}, _user(user)]

    def _told(self, name: str, **values: object) -> str:
        return prompt(name, self._language, **values)


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _listed(missed: Sequence[Mutant]) -> str:
    return "\n".join(f"- {one.text()}" for one in missed[:_TOLD])
