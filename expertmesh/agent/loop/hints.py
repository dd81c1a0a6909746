"""What does the agent itself tell the model while it works? In the language of the task."""

from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files

from expertmesh.agent import prompts


@dataclass(frozen=True, kw_only=True)
class Hints:
    """Texts, some with {fields} to be filled in. Tools speak English, whatever the task."""

    cut: str
    """After an answer that ended too early."""
    empty: str
    repeated: str
    """Below the result of a call that was made before."""
    refused: str
    not_called: str
    not_made: str
    left_out: str
    """In the place of an older result."""
    left_out_kept: str
    check_failed: str
    go_on: str
    """The task of a run that goes on with another, where none is given."""
    plan_first: str
    cite: str


@cache
def hints_in(language: str) -> Hints:
    """`language`: as `language_of` tells it."""
    text = files(prompts).joinpath(f"hints.{language}.txt").read_text(encoding="utf-8")
    found = dict(line.split(": ", 1) for line in text.splitlines())
    return Hints(**{one.name: found.pop(one.name).replace("\\n", "\n") for one in fields(Hints)})


def hints_for(task: str) -> Hints:
    return hints_in(prompts.language_of(task))
