"""How do OpenAI chat messages become what M2's chat template takes?"""

from typing import Any

from minimax_m2.chat.thinking import separate_thinking
from minimax_m2.chat.tool_history import normalise_tool_calls, order_tool_results
from minimax_m2.chat.unicode_text import require_valid_text

_SYSTEM_ROLES = ("system", "developer")
_SYSTEM_EXTRAS = ("current_date", "current_location")


def normalise_messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages for `ChatTemplate.render`; the input is not changed.

    - Content null or absent becomes ""; a list of text parts becomes their texts joined without
      separator, except in tool messages, whose parts the template writes one by one.
    - M2's template takes a system text only at the front, so all system and developer messages,
      wherever they stand, are joined in order, a blank line between, into one first message.
    - An assistant's thinking, in any of its four forms, becomes `reasoning_content`; see
      `separate_thinking`. Malformed thinking is never an error.
    - `function.arguments` becomes a mapping. Results of parallel calls are put in the order of
      the calls when ids say so, because the template renders no ids.
    - An assistant message at the end is rendered as a finished turn, not continued.

    Raises:
        ValueError: naming the field: an unknown role, a content part that is not text, a tool
            message with no assistant tool call before it, arguments that are no JSON object,
            names that would break the format, lone surrogates, no messages at all.
    """
    if not messages:
        raise ValueError("messages: must not be empty")
    system: dict[str, Any] | None = None
    system_texts: list[str] = []
    conversation: list[dict[str, Any]] = []
    may_take_results = False
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        require_valid_text(where, message)
        role = message.get("role")
        if role in _SYSTEM_ROLES:
            system = system or _system_message(message)
            system_texts.append(_text(where, message))
        elif role == "user":
            conversation.append({"role": "user", "content": _text(where, message)})
        elif role == "assistant":
            conversation.append(_assistant_message(where, message))
            may_take_results = "tool_calls" in conversation[-1]
        elif role == "tool":
            if not may_take_results:
                raise ValueError(f"{where}: tool message without an assistant tool call before it")
            conversation.append(_tool_message(where, message))
        else:
            raise ValueError(
                f"{where}.role: must be system, developer, user, assistant or tool, is {role!r:.40}"
            )
    conversation = order_tool_results(conversation)
    if system is None:
        return conversation
    system["content"] = "\n\n".join(text for text in system_texts if text)
    return [system, *conversation]


def _system_message(message: dict[str, Any]) -> dict[str, Any]:
    """The first system message, with the extra lines that M2's template knows."""
    extras = {name: message[name] for name in _SYSTEM_EXTRAS if isinstance(message.get(name), str)}
    return {"role": "system", "content": "", **extras}


def _assistant_message(where: str, message: dict[str, Any]) -> dict[str, Any]:
    reasoning, content = separate_thinking(message, _text(where, message))
    result: dict[str, Any] = {"role": "assistant", "content": content}
    if reasoning:
        result["reasoning_content"] = reasoning
    calls = normalise_tool_calls(f"{where}.tool_calls", message.get("tool_calls"))
    if calls:
        result["tool_calls"] = calls
    return result


def _tool_message(where: str, message: dict[str, Any]) -> dict[str, Any]:
    texts = _part_texts(where, message)
    result: dict[str, Any] = {"role": "tool", "content": "".join(texts)}
    if texts and isinstance(message["content"], list):
        result["content"] = [{"type": "text", "text": text} for text in texts]
    if isinstance(message.get("tool_call_id"), str):
        result["tool_call_id"] = message["tool_call_id"]
    return result


def _text(where: str, message: dict[str, Any]) -> str:
    return "".join(_part_texts(where, message))


def _part_texts(where: str, message: dict[str, Any]) -> list[str]:
    """Texts of a message's content, one for each part."""
    content = message.get("content")
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise ValueError(f"{where}.content: must be a string, a list of text parts or null")
    return [_part_text(f"{where}.content[{index}]", part) for index, part in enumerate(content)]


def _part_text(where: str, part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise ValueError(f"{where}: must be a text part")
    if part.get("type") != "text":
        raise ValueError(
            f"{where}.type: only 'text' is supported, the model reads no other input, "
            f"is {part.get('type')!r:.40}"
        )
    if not isinstance(part.get("text"), str):
        raise ValueError(f"{where}.text: must be a string")
    return part["text"]
