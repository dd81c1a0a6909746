"""How is an answer continued that the client has begun?

The template opens the assistant's turn, and for models that think also their thinking. What the
client has written follows there: its thinking, which the content after it ends, and the content.
"""

from collections.abc import Sequence
from typing import Any

from moe_model.chat.thinking import ThinkTags
from moe_model.text.segments import Segment


def is_open_answer(turns: Sequence[dict[str, Any]]) -> bool:
    """Whether the last turn, as `normalise_messages` gives it, is an answer that can go on."""
    last = turns[-1] if len(turns) > 1 else {}
    text = last.get("content") or last.get("reasoning_content")
    return last.get("role") == "assistant" and not last.get("tool_calls") and bool(text)


def continued(prompt: Sequence[Segment], answer: dict[str, Any], tags: ThinkTags) -> list[Segment]:
    """The prompt of all before, which opens an assistant's turn, with the answer's beginning."""
    segments = list(prompt)
    markers = [segment.text for segment in segments if segment.is_marker]
    content, thinking = answer["content"], answer.get("reasoning_content", "")
    if markers and markers[-1] == tags.opening:
        _write(segments, thinking)
        if content:
            _write(segments, "\n")
            segments.append(Segment(tags.closing, True))
            _write(segments, "\n\n")
    _write(segments, content)
    return segments


def _write(segments: list[Segment], text: str) -> None:
    """Text behind text is one stretch, which is tokenised as a whole."""
    if text and segments and not segments[-1].is_marker:
        text = segments.pop().text + text
    if text:
        segments.append(Segment(text, False))
