"""Which text and which thinking does a message's content hold?

What is asked now must be text. What was said before is accepted as it is: pictures, sounds and
files become a few words in their place, any other part that is not text is shown as JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moe_model.chat.lossless_json import as_text
from moe_model.chat.repairs import Repair, Repairs

_REMINDER_START, _REMINDER_END = "<system-reminder>", "</system-reminder>"
_TEXT_KEYS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
}
_THINKING_TYPES = ("thinking", "reasoning", "reasoning_text", "summary_text")
_HIDDEN_TYPES = ("redacted_thinking",)
_MEDIA_WORDS = ("image", "audio", "video", "file", "document", "pdf")
_MEDIA_KEYS = frozenset(
    f"{name}{ending}"
    for name in ("image", "audio", "video", "file", "input_audio")
    for ending in ("", "_url", "_id", "_data")
) | {"source", "data", "url"}
_MAX_TYPE_CHARS = 40


@dataclass(kw_only=True)
class Content:
    """Texts in order, one for each part, and the thinking found among them."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def asked_content(where: str, content: Any) -> Content:
    """Of a message that is to be answered. Raises ValueError naming what is not text."""
    if content is None:
        return Content()
    if isinstance(content, str):
        return Content(texts=[content])
    if not isinstance(content, list):
        raise ValueError(f"{where}.content: must be a string, a list of text parts or null")
    return Content(
        texts=[_asked_text(f"{where}.content[{i}]", part) for i, part in enumerate(content)]
    )


def past_content(content: Any, repairs: Repairs, *, thinks: bool = False) -> Content:
    """Of a message that was said before: whatever it is, it becomes text.

    `thinks`: thinking parts are thinking, not text.
    """
    result = Content()
    if isinstance(content, Mapping):
        content = [content]
    if content is None:
        return Content()
    if not isinstance(content, list):
        repairs[Repair.CONTENT] += not isinstance(content, str)
        return Content(texts=[as_text(content)])
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in _HIDDEN_TYPES:
            continue
        if thinks and kind in _THINKING_TYPES:
            result.thoughts.append(_thoughts(part))
        else:
            result.texts.append(_past_text(part, repairs))
    return result


def _asked_text(where: str, part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise ValueError(f"{where}: must be a text part")
    kind = part.get("type")
    key = _TEXT_KEYS.get(kind) if isinstance(kind, str) else None
    if key is None:
        raise ValueError(
            f"{where}.type: only 'text' is supported, the model reads no other input, "
            f"is {kind!r:.{_MAX_TYPE_CHARS}}"
        )
    if not isinstance(part.get(key), str):
        raise ValueError(f"{where}.{key}: must be a string")
    return str(part[key])


def _past_text(part: Any, repairs: Repairs) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(kind, str) and _is_media(kind, part):
        repairs[Repair.CONTENT] += 1
        return f"[{kind:.{_MAX_TYPE_CHARS}}: left out, this model reads text only]"
    if isinstance(kind, str) and kind in _TEXT_KEYS:
        part = part.get(_TEXT_KEYS[kind])
    elif isinstance(part, Mapping) and part.keys() <= {"type", "text"}:
        part = part.get("text", part)
    if isinstance(part, str):
        return part
    repairs[Repair.CONTENT] += 1
    return as_text(part)


def _is_media(kind: str, part: Mapping[str, Any]) -> bool:
    """A type that says so and a member that holds or names the data."""
    return any(word in kind for word in _MEDIA_WORDS) and not _MEDIA_KEYS.isdisjoint(part)


def _thoughts(part: Mapping[str, Any]) -> str:
    """The text of a thinking part, in the first of its forms that is there."""
    for key in ("thinking", "reasoning", "text", "content", "summary"):
        value = part.get(key)
        items = value if isinstance(value, list) else [{"text": value}]
        texts = [item.get("text") for item in items if isinstance(item, Mapping)]
        thought = "".join(text for text in texts if isinstance(text, str))
        if thought:
            return thought
    return ""


def is_reminder(text: str) -> bool:
    """Whether a text is one reminder of the system, whole."""
    text = text.strip()
    return text.startswith(_REMINDER_START) and text.endswith(_REMINDER_END)


def reminder(text: str) -> str:
    """What the system says in the middle of a conversation, as agents write it."""
    return text if is_reminder(text) else f"{_REMINDER_START}\n{text}\n{_REMINDER_END}"
