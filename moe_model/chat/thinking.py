"""Where is an assistant message's thinking, in whichever of its forms a client returned it?

`reasoning_content`, `reasoning` or `thinking` (strings), `reasoning_details` (list of objects with
`text`), or think tags inside the content. Content parts of thinking: see `message_parts.py`.
Nothing here raises: thinking that is malformed stays what it is, text.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple


class ThinkTags(NamedTuple):
    """Around thinking that stands in the text; the default is what most models write."""

    opening: str = "<think>"
    closing: str = "</think>"


THINK_TAGS = ThinkTags()


def separate_thinking(
    message: Mapping[str, Any], content: str, tags: ThinkTags = THINK_TAGS
) -> tuple[str, str]:
    """Reasoning and content of one assistant message.

    The first non-empty form wins, in the order above. When it is a field, a think block that
    opens the content and says the same is left out. Fields of other types are ignored.
    """
    reasoning = _from_fields(message)
    inline, rest = cut_inline_thinking(content, tags)
    if not reasoning:
        return inline, rest
    return reasoning, rest if inline and inline.strip() == reasoning.strip() else content


def cut_inline_thinking(content: str, tags: ThinkTags = THINK_TAGS) -> tuple[str, str]:
    """Reasoning and content, where the content has the thinking in it as a model writes it.

    That is a block which opens the content, up to the first closing tag at the beginning of a line,
    or else the first one; or, without the opening tag, which the prompt already has, everything
    before a closing tag that is alone on its line. Newlines around both belong to the format. An
    opening tag alone on its line that nothing closes is a thought that was cut off. All other tags
    are text that mentions them, unlike in M2's template, which takes whatever precedes a closing
    tag for thinking.
    """
    opened, end = content.lstrip(), re.escape(tags.closing)
    if opened.startswith(tags.opening):
        thought = opened.removeprefix(tags.opening)
        closing = re.search(f"(?m)^{end}", thought) or re.search(end, thought)
        if closing:
            return thought[: closing.start()].strip("\n"), thought[closing.end() :].strip("\n")
        return (thought.strip("\n"), "") if thought.startswith("\n") else ("", content)
    alone = re.search(f"(?m)^{end}$", content)
    if alone and tags.opening not in content and content.count(tags.closing) == 1:
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
