"""Where is an assistant message's thinking, in whichever of its forms a client returned it?

`reasoning_content`, `reasoning` or `thinking` (strings), `reasoning_details` (list of objects with
`text`), or think tags inside the content. Content parts of thinking: see `message_parts.py`.
Nothing here raises: thinking that is malformed stays what it is, text.
"""

from collections.abc import Mapping
from typing import Any

from minimax_m2.chat.added_tokens import THINK_END, THINK_START


def separate_thinking(message: Mapping[str, Any], content: str) -> tuple[str, str]:
    """Reasoning and content of one assistant message.

    The first non-empty form wins, in the order above. When it is a field, a think block that
    opens the content is taken for the same thought sent twice and left out. Fields of other
    types are ignored.
    """
    reasoning = _from_fields(message)
    if reasoning:
        if content.lstrip().startswith(THINK_START):
            return reasoning, cut_inline_thinking(content)[1]
        return reasoning, content
    return cut_inline_thinking(content)


def cut_inline_thinking(content: str) -> tuple[str, str]:
    """Reasoning and content, cut where M2's own template cuts them.

    With a closing tag: reasoning is what stands before the first one and after the last opening
    tag there; content is what follows the last closing tag; newlines are stripped around both.
    Without one: a text that begins with the opening tag is all reasoning (its answer was cut
    off); any other text is all content.
    """
    head, closing_tag, _ = content.partition(THINK_END)
    if closing_tag:
        reasoning = head.strip("\n").rpartition(THINK_START)[2].strip("\n")
        return reasoning, content.rpartition(THINK_END)[2].strip("\n")
    opened = content.lstrip()
    if opened.startswith(THINK_START):
        return opened.replace(THINK_START, "", 1).strip("\n"), ""
    return "", content


def _from_fields(message: Mapping[str, Any]) -> str:
    for name in ("reasoning_content", "reasoning", "thinking"):
        value = message.get(name)
        if isinstance(value, str) and value:
            return value
    details = message.get("reasoning_details")
    if not isinstance(details, list):
        return ""
    texts = (item.get("text") for item in details if isinstance(item, dict))
    return "".join(text for text in texts if isinstance(text, str))
