"""How do Anthropic's turns become the chat messages that the core renders?

A user's message may hold several things: results of tools, which come first; reminders, which a
client puts into blocks of their own; and what the user says. In a message with results a reminder
is a system message that follows them, so that it is no turn of the user.

What was said before the last answer is taken as it comes, and so is an earlier message of the user
without an answer: it may be the one that was refused. What is asked now must be text. In tool
results everything that is no text is left out with a word in its place, because an agent cannot
change what its tools gave.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gateway.errors import bad_field, unsupported
from moe_model.chat.message_parts import is_reminder

_BILLING = "x-anthropic-billing-header:"
"""Begins a block that Claude Code puts first; it differs from session to session, so that no two
would share a cached prompt."""
_MEDIA = ("image", "document", "file", "container_upload")
_ERROR = "Error: "


def chat_messages(
    system: Any, messages: Sequence[Any], *, reads_all: bool = False
) -> list[dict[str, Any]]:
    """Messages for the encoder. Raises RequestError naming the field.

    `reads_all`: what is asked now may hold anything, too.
    """
    if not messages:
        raise bad_field("messages", "must not be empty")
    result = [{"role": "system", "content": text} for text in _system_texts(system)]
    last_answer, last_user = _last_of("assistant", messages), _last_of("user", messages)
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            raise bad_field(where, "must be an object", "invalid_type")
        role = message.get("role")
        if role not in ("user", "assistant", "system"):
            raise bad_field(f"{where}.role", f"must be user or assistant, is {role!r:.40}")
        if role == "assistant":
            result.append(_assistant(message))
            continue
        is_asked = index > last_answer and (role != "user" or index == last_user)
        if is_asked and not reads_all:
            _require_text(f"{where}.content", message.get("content"))
        result += _asked(role, message.get("content"))
    return result


def _last_of(role: str, messages: Sequence[Any]) -> int:
    """Index of this role's last message, -1 for none."""
    roles = [one.get("role") if isinstance(one, dict) else None for one in messages]
    return max((i for i, one in enumerate(roles) if one == role), default=-1)


def thinking_blocks(messages: Iterable[Any]) -> Iterable[Mapping[str, Any]]:
    """All thinking blocks of a request's messages, whatever else these hold."""
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        for block in content if isinstance(content, list) else ():
            if isinstance(block, dict) and block.get("type") == "thinking":
                yield block


def _system_texts(system: Any) -> Iterator[str]:
    blocks = [{"text": system}] if isinstance(system, str) else system or []
    if not isinstance(blocks, list):
        raise bad_field("system", "must be a string or a list of text blocks", "invalid_type")
    for index, block in enumerate(blocks):
        text = block.get("text") if isinstance(block, dict) else None
        if not isinstance(text, str) or block.get("type", "text") != "text":
            raise bad_field(f"system[{index}]", "must be a text block", "invalid_type")
        if not text.startswith(_BILLING):
            yield text


def _require_text(where: str, content: Any) -> None:
    """Refuse what the model cannot read."""
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        raise bad_field(where, "must be a string or a list of blocks", "invalid_type")
    for index, block in enumerate(content):
        place = f"{where}[{index}]"
        kind = block.get("type") if isinstance(block, dict) else None
        if kind in _MEDIA:
            raise unsupported(f"{place}.type", f"{kind} blocks: this model reads text only")
        if kind not in ("text", "tool_result"):
            raise unsupported(f"{place}.type", f"{kind!r:.40}: must be text or tool_result")
        if kind == "text" and not isinstance(block.get("text"), str):
            raise bad_field(f"{place}.text", "must be a string", "invalid_type")


def _asked(role: str, content: Any) -> list[dict[str, Any]]:
    """A user's or a system message, tool results apart."""
    blocks = content if isinstance(content, list) else []
    results = [block for block in blocks if _type_of(block) == "tool_result"]
    if not results:
        return [{"role": role, "content": content}]
    reminders: list[Any] = []
    said: list[Any] = []
    for block in blocks:
        if _type_of(block) != "tool_result":
            is_text = isinstance(block, dict) and isinstance(block.get("text"), str)
            (reminders if is_text and is_reminder(block["text"]) else said).append(block)
    return [
        *(_result(block) for block in results),
        *({"role": "system", "content": block["text"]} for block in reminders),
        *([{"role": role, "content": said}] if said else []),
    ]


def _result(block: dict[str, Any]) -> dict[str, Any]:
    content = block.get("content")
    if block.get("is_error") is True:
        content = _marked_as_error(content)
    return {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content}


def _marked_as_error(content: Any) -> Any:
    """The model is told that the tool failed, unless its words say so."""
    first = content[0] if isinstance(content, list) and content else content
    text = first.get("text") if isinstance(first, dict) else first
    if isinstance(text, str) and text[:20].lower().lstrip("<").startswith(
        ("error", "tool_use_error")
    ):
        return content
    if isinstance(content, str):
        return _ERROR + content
    parts = content if isinstance(content, list) else [] if content is None else [content]
    if parts and isinstance(text, str):  # the template shows each part as a response of its own
        return [{"type": "text", "text": _ERROR + text}, *parts[1:]]
    return [{"type": "text", "text": _ERROR}, *parts]


def _assistant(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return {"role": "assistant", "content": content}
    calls = [block for block in content if _type_of(block) == "tool_use"]
    turn: dict[str, Any] = {
        "role": "assistant",
        "content": [block for block in content if _type_of(block) != "tool_use"],
    }
    if calls:
        turn["tool_calls"] = [
            {
                "id": call.get("id"),
                "type": "function",
                "function": {"name": call.get("name"), "arguments": call.get("input")},
            }
            for call in calls
        ]
    return turn


def _type_of(block: Any) -> Any:
    return block.get("type") if isinstance(block, dict) else None
