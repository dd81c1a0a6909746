"""How does a trace read? As text, event by event."""

import time
from collections.abc import Callable, Iterator
from typing import Any

Event = dict[str, Any]


def trace_lines(events: list[Event]) -> Iterator[str]:
    """The run as text."""
    for event in events:
        writer = _WRITERS.get(event["event"])
        if writer is not None:
            yield from writer(event)


def _start(event: Event) -> Iterator[str]:
    yield f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(event['at']))}  {event['folder']}"
    yield from (f"{key}: {event[key]}" for key in ("model", "server", "sandbox") if key in event)
    if event.get("check"):
        yield f"check: {event['check']}"


def _user(event: Event) -> Iterator[str]:
    yield f"\nuser:\n{_indented(event['message']['content'])}"


def _assistant(event: Event) -> Iterator[str]:
    message = event["message"]
    speed = f", {event['completion_tokens']} tokens" if "completion_tokens" in event else ""
    yield f"\nstep {event.get('step', '-')}{speed}:"
    if message.get("reasoning_content"):
        yield _indented(message["reasoning_content"], "    | ")
    if message.get("content"):
        yield _indented(message["content"])
    for call in message.get("tool_calls", ()):
        yield f"    -> {call['function']['name']} {call['function']['arguments']}"


def _tool(event: Event) -> Iterator[str]:
    yield f"  {event['name']}: {event['status']}, {event['seconds']:.1f} s"
    yield _indented(event["message"]["content"])


def _check(event: Event) -> Iterator[str]:
    yield f"\ncheck `{event['command']}` {'passed' if event['passed'] else 'failed'}:"
    yield _indented(event["text"])


def _compact(event: Event) -> Iterator[str]:
    yield f"\n{len(event['replaced'])} older results were left out of the context"


def _changes(event: Event) -> Iterator[str]:
    yield from (f"  {line}" for line in event["files"])


def _end(event: Event) -> Iterator[str]:
    reason = f": {event['reason']}" if event["reason"] else ""
    counts = f"{event['steps']} steps, {event['completion_tokens']} tokens"
    yield f"\n{event['ending']}{reason} ({counts})"


def _undone(event: Event) -> Iterator[str]:
    yield f"\nput back: {', '.join(event['restored']) or 'nothing'}"


_WRITERS: dict[str, Callable[[Event], Iterator[str]]] = {
    "start": _start,
    "user": _user,
    "answer": _assistant,
    "assistant": _assistant,
    "tool": _tool,
    "check": _check,
    "compact": _compact,
    "changes": _changes,
    "end": _end,
    "undone": _undone,
}


def _indented(text: str, prefix: str = "    ") -> str:
    return "\n".join(prefix + line for line in text.strip().splitlines())
