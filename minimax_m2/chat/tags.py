"""Is there one of M2's output tags at this place of the text, is there none, or is it too early?

Think and wrapper tags are tokens and must be exact. Invoke and parameter tags are ordinary text:
blanks inside them are tolerated, and names in double quotes, single quotes or none. A tag has at
most `MAX_TAG_CHARS` characters and a name that `tools.py` allows; anything else is text.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto

from minimax_m2.chat.added_tokens import THINK_END, THINK_START, TOOL_CALLS_END, TOOL_CALLS_START
from minimax_m2.chat.tools import MAX_PARAMETER_NAME_CHARS

MAX_TAG_CHARS = 256


class TagKind(Enum):
    THINK_START = auto()
    THINK_END = auto()
    CALLS_START = auto()
    CALLS_END = auto()
    INVOKE_START = auto()
    INVOKE_END = auto()
    PARAMETER_START = auto()
    PARAMETER_END = auto()


@dataclass(frozen=True)
class Tag:
    """A whole tag; `end` is the position after its `>`, `name` that of an opening tag."""

    kind: TagKind
    end: int
    name: str = ""


class NoTag(Enum):
    """Why there is no tag: there never will be, or the text ends too early to tell."""

    NEVER = auto()
    UNDECIDED = auto()


_FIXED = {
    THINK_START: TagKind.THINK_START,
    THINK_END: TagKind.THINK_END,
    TOOL_CALLS_START: TagKind.CALLS_START,
    TOOL_CALLS_END: TagKind.CALLS_END,
}
_OPENING = {"invoke": TagKind.INVOKE_START, "parameter": TagKind.PARAMETER_START}
_CLOSING = {"invoke": TagKind.INVOKE_END, "parameter": TagKind.PARAMETER_END}

_OPEN_TAG = re.compile(
    r"<\s*(invoke|parameter)\s+name\s*=\s*"
    r"""(?:"([^"<>\x00-\x1f\x7f]+)"|'([^'"<>\x00-\x1f\x7f]+)'|([^\s'"<>\x00-\x1f\x7f]+))\s*>"""
)
_CLOSE_TAG = re.compile(r"<\s*/\s*(invoke|parameter)\s*>")
# Every beginning of a tag above matches this; what else does only waits a little longer.
_BEGINNING = re.compile(r"<\s*(?:/\s*)?([a-z]*)(\s?)")


def match_tag(text: str, start: int, *, is_end: bool) -> Tag | NoTag:
    """The tag at `text[start]`, which must be "<".

    Args:
        is_end: no more text will come, so nothing is undecided.
    """
    close = text.find(">", start + 1, start + MAX_TAG_CHARS)
    if close < 0:
        too_long = len(text) - start >= MAX_TAG_CHARS
        if is_end or too_long or not _may_become_tag(text[start:]):
            return NoTag.NEVER
        return NoTag.UNDECIDED
    candidate = text[start : close + 1]
    if candidate in _FIXED:
        return Tag(_FIXED[candidate], close + 1)
    if match := _OPEN_TAG.fullmatch(candidate):
        name = (match[2] or match[3] or match[4]).strip()
        if not 1 <= len(name) <= MAX_PARAMETER_NAME_CHARS:
            return NoTag.NEVER
        return Tag(_OPENING[match[1]], close + 1, name)
    if match := _CLOSE_TAG.fullmatch(candidate):
        return Tag(_CLOSING[match[1]], close + 1)
    return NoTag.NEVER


def _may_become_tag(beginning: str) -> bool:
    """False only for text that no continuation can turn into a tag."""
    if beginning.find("<", 1) > 0:
        return False
    if any(tag.startswith(beginning) for tag in _FIXED):
        return True
    match = _BEGINNING.match(beginning)
    if match is None:
        return False
    word, is_whole = match[1], match.end() < len(beginning) or bool(match[2])
    if is_whole:
        return word in _OPENING
    return any(name.startswith(word) for name in _OPENING)
