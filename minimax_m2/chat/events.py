"""What does the output parser report?"""

from dataclasses import dataclass


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


def coalesce(events: list[ParserEvent]) -> list[ParserEvent]:
    """Join neighbouring deltas of the same kind, and of the same call."""
    joined: list[ParserEvent] = []
    for event in events:
        last = joined[-1] if joined else None
        if isinstance(event, ReasoningDelta) and isinstance(last, ReasoningDelta):
            joined[-1] = ReasoningDelta(last.text + event.text)
        elif isinstance(event, ContentDelta) and isinstance(last, ContentDelta):
            joined[-1] = ContentDelta(last.text + event.text)
        elif (
            isinstance(event, ToolCallArguments)
            and isinstance(last, ToolCallArguments)
            and last.index == event.index
        ):
            joined[-1] = ToolCallArguments(event.index, last.fragment + event.fragment)
        else:
            joined.append(event)
    return joined
