"""How does `expertmesh dev` ask to mend a failing command, or to refactor code?"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from demo_model.draw import Draw
from demo_model.tasks.story import Story
from expertmesh.agent.loop.verify import Check
from expertmesh.agent.sandbox.policy import Outcome
from expertmesh.assistants.error_places import code_around
from expertmesh.assistants.prompts import prompt
from expertmesh.assistants.reviewing.passages import fenced

HINTS = (
    ("It worked yesterday.", "昨天还能用。"),
    ("I changed one line only.", "我只改了一行。"),
    ("Look at the last function.", "看看最后一个函数。"),
    ("The tests are right.", "测试是对的。"),
)


def ask(story: Story, command: str, outcome: Outcome, files: Mapping[str, str]) -> None:
    """As `expertmesh dev debug -- COMMAND` does, which has run it and shows the lines concerned.

    `files`: name -> text, in the folder in which the command failed.
    """
    draw = story.draw
    check = checked(command, outcome)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        found = code_around(check.text.replace(story.folder, folder), Path(folder))
    passages = [replace(one, file=one.file.replace(folder, story.folder)) for one in found]
    hint = f"\n{draw.say(*draw.rng.choice(HINTS))}\n" if draw.rng.random() < 0.2 else ""
    task = prompt(
        "debug",
        draw.language,
        command=command,
        hint=hint,
        output=fenced(check.text),
        code="\n\n".join(f"{one.file}:\n{one.block()}" for one in passages),
    )
    story.user(task.strip(), draw.language)


def checked(command: str, outcome: Outcome) -> Check:
    """What the agent says of a command that was run."""
    printed = "\n".join(part for part in (outcome.stdout, outcome.stderr) if part.strip())
    return Check(command, outcome.ok, f"exit code {outcome.exit_code}\n{printed}".strip(), 0.1)


def ask_to_refactor(draw: Draw, task: str) -> str:
    """As `expertmesh dev refactor TASK` does, with a check or without."""
    if draw.rng.random() < 0.5:
        return prompt("refactor", draw.language, task=task)
    check = draw.rng.choice(("pytest -q", "python -m pytest -q", "make test"))
    return prompt("refactor_checked", draw.language, task=task, check=check)
