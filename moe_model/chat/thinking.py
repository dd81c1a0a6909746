"""Where is an assistant message's thinking, in whichever of its forms a client returned it?

`reasoning_content`, `reasoning` or `thinking` (strings), `reasoning_details` (list of objects with
`text`), or think tags inside the content. Content parts of thinking: see `message_parts.py`.
Nothing here raises: thinking that is malformed stays what it is, text.
"""

import re
from collections.abc import Mapping
from typing import Any

from moe_model.text.added_tokens import THINK_END, THINK_START

_CLOSING = re.compile(re.escape(THINK_END))
_CLOSING_LINE = re.compile(f"^{re.escape(THINK_END)}", re.MULTILINE)
_ALONE = re.compile(f"^{re.escape(THINK_END)}$", re.MULTILINE)


def separate_thinking(message: Mapping[str, Any], content: str) -> tuple[str, str]:
    """Reasoning and content of one assistant message.

    The first non-empty form wins, in the order above. When it is a field, a think block that
    opens the content and says the same is left out. Fields of other types are ignored.
    """
    reasoning = _from_fields(message)
    inline, rest = cut_inline_thinking(content)
    if not reasoning:
        return inline, rest
    return reasoning, rest if inline and inline.strip() == reasoning.strip() else content


def cut_inline_thinking(content: str) -> tuple[str, str]:
    """Reasoning and content, where the content has the thinking in it as a model writes it.

    That is a block which opens the content, up to the first closing tag at the beginning of a line,
    or else the first one; or, without the opening tag, which the prompt already has, everything
    before a closing tag that is alone on its line. Newlines around both belong to the format. An
    opening tag alone on its line that nothing closes is a thought that was cut off. All other tags
    are text that mentions them, unlike in M2's template, which takes whatever precedes a closing
    tag for thinking.
    """
    opened = content.lstrip()
    if opened.startswith(THINK_START):
        thought = opened.removeprefix(THINK_START)
        closing = _CLOSING_LINE.search(thought) or _CLOSING.search(thought)
        if closing:
            return thought[: closing.start()].strip("\n"), thought[closing.end() :].strip("\n")
        return (thought.strip("\n"), "") if thought.startswith("\n") else ("", content)
    alone = _ALONE.search(content)
    if alone and THINK_START not in content and content.count(THINK_END) == 1:
        return content[: alone.start()].strip("\n"), content[alone.end() :].strip("\n")
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
