"""What of an earlier run does a new one go on with, or repeat?"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expertmesh.agent.loop.hints import hints_for
from expertmesh.agent.loop.turn import OnPiece
from expertmesh.agent.record.run_folder import RunFolder
from expertmesh.agent.record.trace import read_trace
from expertmesh.agent.tools.tool import Source
from expertmesh.agent.web.marking import is_marked
from expertmesh.clients.chat import Piece, Reply
from expertmesh.clients.chat_stream import ChatError

_OUTSIDE = ("http://", "https://", "mcp:")
"""How the places of sources begin whose text strangers may have written."""


@dataclass
class Earlier:
    """A conversation as it stood when its run ended."""

    outputs: Path
    """The folder of what tools printed, to which the conversation refers."""
    task: str = ""
    folder: str = ""
    """The work folder of that run."""
    messages: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[int, str] = field(default_factory=dict)
    """Index of a tool's result -> the line that may stand for it."""
    sources: list[Source] = field(default_factory=list)

    @property
    def web_was_read(self) -> bool:
        """Whether text from outside was in it, also if it was left out since."""
        if any(one.place.startswith(_OUTSIDE) for one in self.sources):
            return True
        texts = (one.get("content") for one in self.messages if one["role"] == "tool")
        return any(is_marked(text) for text in texts if isinstance(text, str))


def read_earlier(run: RunFolder) -> Earlier:
    """Of the run's trace; calls without a result get one that says so. Raises ValueError."""
    earlier = Earlier(run.outputs)
    try:
        for event in read_trace(run.trace):
            _take(earlier, event)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{run.trace}: not a trace of this version: {error!r}") from None
    _answer_open_calls(earlier.messages, hints_for(earlier.task).not_made)
    return earlier


def _take(earlier: Earlier, event: dict[str, Any]) -> None:
    kind = event["event"]
    if kind == "start":
        earlier.task, earlier.folder = event["task"], event["folder"]
    elif kind == "compact":
        for index, text in event["replaced"]:
            earlier.messages[index] = {**earlier.messages[index], "content": text}
            earlier.notes.pop(index, None)
    for one in event.get("sources", ()):
        when = one.get("when", event["at"])
        earlier.sources.append(Source(one["place"], one["excerpt"], one["sha256"], when))
    if "message" in event:
        if event.get("line"):
            earlier.notes[len(earlier.messages)] = event["line"]
        earlier.messages.append(event["message"])


def _answer_open_calls(messages: list[dict[str, Any]], answer: str) -> None:
    """Only the last answer can have some."""
    last = max((i for i, one in enumerate(messages) if one["role"] == "assistant"), default=None)
    if last is None:
        return
    answered = {one.get("tool_call_id") for one in messages[last:]}
    for call in messages[last].get("tool_calls", ()):
        if call["id"] not in answered:
            message = {"role": "tool", "tool_call_id": call["id"], "content": answer}
            messages.append(message)


@dataclass(frozen=True)
class Recorded:
    """What a replay needs of a trace."""

    start: dict[str, Any]
    answers: list[dict[str, Any]]
    results: list[dict[str, Any]]


def read_recorded(run: RunFolder) -> Recorded:
    """Raises ValueError."""
    events = read_trace(run.trace)
    of = {kind: [one for one in events if one["event"] == kind] for kind in ("start", "answer")}
    if not of["start"]:
        raise ValueError(f"{run.trace}: it does not begin with a start")
    results = [one for one in events if one["event"] == "tool"]
    return Recorded(of["start"][0], of["answer"], results)


class RecordedModel:
    """Gives the answers of a trace again, in their order, whatever it is asked."""

    def __init__(self, answers: list[dict[str, Any]]):
        self._answers = iter(answers)

    async def ask(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], on_piece: OnPiece
    ) -> Reply:
        event = next(self._answers, None)
        if event is None:
            raise ChatError("the trace has no more answers")
        message = event["message"]
        reply = Reply(
            reasoning=message.get("reasoning_content", ""),
            content=message.get("content") or "",
            tool_calls=[dict(one) for one in message.get("tool_calls", ())],
            finish_reason=event["finish_reason"],
            prompt_tokens=event["prompt_tokens"],
            completion_tokens=event["completion_tokens"],
            cached_tokens=event["cached_tokens"],
            first_token_s=event["first_token_s"],
            total_s=event["seconds"],
        )
        on_piece(Piece("content", reply.content), reply)
        return reply


def differences(recorded: Recorded, now: list[dict[str, Any]]) -> list[str]:
    """Where a replay's results are not those of the trace."""
    found = []
    for old, new in zip(recorded.results, now, strict=False):
        if old["message"]["content"] != new["message"]["content"]:
            found.append(f"step {old['step']}: the result of {old['name']} differs")
    if len(recorded.results) != len(now):
        found.append(f"{len(now)} calls were made instead of {len(recorded.results)}")
    return found
