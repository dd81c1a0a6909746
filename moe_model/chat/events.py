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
    """A call begins, whether its tool is on offer or not; `index` counts calls from 0."""

    index: int
    name: str


@dataclass(frozen=True)
class ToolCallArguments:
    """More of a call's arguments; those of a whole call concatenate to one JSON object."""

    index: int
    fragment: str


@dataclass(frozen=True)
class ToolCallEnd:
    """A call has ended.

    `complete` is false when the output ended inside the call: then its arguments were left open
    and are not JSON, so that no client takes a part for the whole.
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
        if isinstance(first, ReasoningDelta | ContentDelta):
            joined.append(type(first)("".join(e.text for e in run)))  # type: ignore[union-attr]
        elif isinstance(first, ToolCallArguments):
            fragments = "".join(e.fragment for e in run)  # type: ignore[union-attr]
            joined.append(ToolCallArguments(first.index, fragments))
        else:
            joined.extend(run)
    return joined
