"""What does the output parser report?"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class ReasoningDelta:
    """More of the thinking."""

    text: str


@dataclass(frozen=True)
class ContentDelta:
    """More of the answer."""

    text: str


@dataclass(frozen=True)
class ToolCallStart:
    """A call of a known tool begins; `index` counts calls from 0."""

    index: int
    name: str


@dataclass(frozen=True)
class ToolCallArguments:
    """More of a call's arguments; its fragments concatenate to one valid JSON object."""

    index: int
    fragment: str


@dataclass(frozen=True)
class ToolCallEnd:
    """A call's arguments are a whole JSON object now.

    `complete` is false when the output ended inside the call, for instance at a length limit:
    the JSON was closed for validity, but the model had not finished it.
    """

    index: int
    complete: bool = True


ParserEvent = ReasoningDelta | ContentDelta | ToolCallStart | ToolCallArguments | ToolCallEnd


def coalesce(events: Iterable[ParserEvent]) -> list[ParserEvent]:
    """Join neighbouring deltas of the same kind, and of the same call; linear in the text."""
    joined: list[ParserEvent] = []
    for _, group in groupby(events, key=lambda event: (type(event), getattr(event, "index", 0))):
        run = list(group)
        first = run[0]
        if isinstance(first, ReasoningDelta):
            joined.append(ReasoningDelta("".join(e.text for e in run)))  # type: ignore[union-attr]
        elif isinstance(first, ContentDelta):
            joined.append(ContentDelta("".join(e.text for e in run)))  # type: ignore[union-attr]
        elif isinstance(first, ToolCallArguments):
            fragments = "".join(e.fragment for e in run)  # type: ignore[union-attr]
            joined.append(ToolCallArguments(first.index, fragments))
        else:
            joined.extend(run)
    return joined
