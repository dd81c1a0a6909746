"""How many broken toy projects does the model repair by itself? Real pytest says so.

    python -m demo_model.judging.repair --model demo_model/model --tasks 150

The model is asked in this process, with the agent's prompt and tools; what it calls is done in a
folder of its own, and the tests run in bubblewrap.
"""

import argparse
import json
import math
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from demo_model import chat, checkpoint_format
from demo_model.dataset import Encoder, token_id
from demo_model.draw import Draw, Split
from demo_model.generate import GREEDY, SERVED, Decoder
from demo_model.judging import replies, workplace
from demo_model.judging.workplace import Workplace
from demo_model.phrasings import LANGUAGES
from demo_model.programs.project import redrawn
from demo_model.tasks import repair
from demo_model.tasks.story import Story
from demo_model.toolboxes import definitions, toolbox
from expertmesh.agent.loop.hints import hints_for
from expertmesh.agent.loop.recovery import GivenUpError
from expertmesh.agent.prompts import system_prompt

MAX_STEPS = 14
MAX_NEW = 320
BATCH = 25
SPLITS = {"pairs": Split.OPERANDS, "templates": Split.TEMPLATES, "trained": Split.TRAIN}

Answer = Callable[[list[list[chat.Segment]]], list[str]]
"""The model: prompts -> raw completions."""


@dataclass(kw_only=True)
class Episode:
    """One task on its way."""

    language: str
    kind: str
    place: Workplace
    tools: list[dict[str, Any]]
    messages: list[dict[str, Any]]
    steps: int = 0
    ended: str = ""
    passes: bool = False
    trouble: list[str] = field(default_factory=list)

    def prompt(self) -> list[chat.Segment]:
        made = chat.Conversation(
            skill="",
            language="",
            tools=self.tools,
            messages=[*self.messages, chat.assistant("", "")],
        )
        return [(text, False) for text, _ in chat.render(made)[:-1]]

    def take(self, completion: str) -> None:
        """One turn of the model's."""
        said = replies.read(completion)
        self.steps += 1
        if said.calls is None:
            self.ended = "malformed"
        elif not said.calls:
            self.ended = "answered"
            self.messages.append(chat.assistant(said.thinking, said.content))
        else:
            self.messages.append(chat.calling(said.thinking, *said.calls, content=said.content))
            self._make(said.calls)
        if self.steps >= MAX_STEPS and not self.ended:
            self.ended = "out of steps"
        if self.ended:
            self.passes = self.place.passes()

    def _make(self, calls: tuple[tuple[str, dict[str, str]], ...]) -> None:
        try:
            for name, arguments in calls:
                result = self.place.call(name, arguments)
                self.messages.append({"role": "tool", "content": result})
        except GivenUpError:
            self.ended = "repeated itself"


def start(split: Split, number: int, seed: int, folder: Path, runner: workplace.Runner) -> Episode:
    """A task that no training run drew: from a seed that no batch has."""
    language = LANGUAGES[number % len(LANGUAGES)]
    rng = random.Random(f"judge-repair-{split.value}-{seed}-{number}")
    draw = Draw(rng=rng, language=language, split=split)
    story = Story(draw, "repair", ("run", "view", "edit"), agent_share=1.0)
    made = redrawn(lambda: repair.draw_project(draw))
    repair.ask(story, made)
    task = story.messages[-1]
    own = definitions.agent()["own"]
    system = {"role": "system", "content": system_prompt(task["content"], folder, own)}
    hints = hints_for(task["content"])
    place = Workplace(folder=folder, project=made, runner=runner, hints=hints)
    tools = toolbox.whole(rng)
    return Episode(
        language=language,
        kind=made.bugs[0].pair.mutation.kind,
        place=place,
        tools=tools,
        messages=[system, task],
    )


def play(episodes: list[Episode], answer: Answer) -> None:
    """All to their ends, some at a time."""
    while running := [episode for episode in episodes if not episode.ended]:
        for first in range(0, len(running), BATCH):
            batch = running[first : first + BATCH]
            completions = answer([episode.prompt() for episode in batch])
            for episode, completion in zip(batch, completions, strict=True):
                episode.take(completion)


def interval(right: int, asked: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z, share = 1.96, right / asked
    middle = (share + z * z / (2 * asked)) / (1 + z * z / asked)
    half = z * math.sqrt(share * (1 - share) / asked + z * z / (4 * asked**2)) / (1 + z * z / asked)
    return max(0.0, middle - half), min(1.0, middle + half)


def summary(episodes: list[Episode]) -> dict[str, Any]:
    right = sum(episode.passes for episode in episodes)
    low, high = interval(right, len(episodes))
    kinds: dict[str, list[int]] = {}
    for episode in episodes:
        cell = kinds.setdefault(episode.kind, [0, 0])
        cell[0] += episode.passes
        cell[1] += 1
    return {
        "tasks": len(episodes),
        "repaired": right,
        "share": round(right / len(episodes), 4),
        "interval_95": [round(low, 4), round(high, 4)],
        "by_language": {
            language: sum(e.passes for e in episodes if e.language == language)
            for language in LANGUAGES
        },
        "by_kind": dict(sorted(kinds.items())),
        "ended": {
            end: sum(e.ended == end for e in episodes)
            for end in sorted({e.ended for e in episodes})
        },
        "steps_mean": round(sum(e.steps for e in episodes) / len(episodes), 2),
    }


def of_checkpoint(folder: Path, device: str, *, sampled: bool) -> Answer:
    """The checkpoint's answers."""
    from demo_model.self_check import load_for

    decoder = Decoder(load_for(folder, device), checkpoint_format.load_shape(folder))
    encoder = Encoder(folder / "tokenizer.json")
    end_id = token_id(encoder.tokenizer, chat.END_OF_TURN)

    def answer(prompts: list[list[chat.Segment]]) -> list[str]:
        ids = [encoder.encode(prompt)[0] for prompt in prompts]
        done = decoder.complete(
            ids, end_id=end_id, max_new=MAX_NEW, sampling=SERVED if sampled else GREEDY
        )
        return [encoder.tokenizer.decode(each, skip_special_tokens=False) for each in done]

    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "model")
    parser.add_argument("--tasks", type=int, default=150)
    parser.add_argument("--split", choices=tuple(SPLITS), default="pairs", help="what is held out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sampled", action="store_true", help="the served sampling defaults")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--without-sandbox", action="store_true", help="where bwrap is missing")
    parser.add_argument("--failures", type=Path, help="write the conversations that failed here")
    given = parser.parse_args()
    if not given.without_sandbox and not workplace.has_bubblewrap():
        parser.error("bwrap is not installed; install bubblewrap, or say --without-sandbox")
    runner = workplace.plain if given.without_sandbox else workplace.bubblewrapped
    with tempfile.TemporaryDirectory(prefix="repair-", dir=Path.home()) as root:
        episodes = [
            start(SPLITS[given.split], number, given.seed, Path(root) / f"task{number}", runner)
            for number in range(given.tasks)
        ]
        play(episodes, of_checkpoint(given.model, given.device, sampled=given.sampled))
    if given.failures:
        failed = [
            {"kind": e.kind, "ended": e.ended, "messages": e.messages}
            for e in episodes
            if not e.passes
        ]
        given.failures.write_text(json.dumps(failed, ensure_ascii=False, indent=1))
    print(json.dumps({"split": given.split, "sampled": given.sampled, **summary(episodes)}))


if __name__ == "__main__":
    main()
