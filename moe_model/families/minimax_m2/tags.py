"""Is there one of M2's output tags at this place in the text, or is it too early to tell?

Think and wrapper tags are tokens of the vocabulary. A model that means one emits the token; a model
that quotes one spells it with ordinary tokens, as we encode it in a user's text. To have both in
one string, a token is written as a lone surrogate, which no UTF-8 text can contain; a `Tag` says
which of the two it is. Invoke and parameter tags are always ordinary text: blanks inside
them are tolerated, and names in double quotes, single quotes or none. A tag has at most
`MAX_TAG_CHARS` characters and a name that `tools.py` allows; anything else is text.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto

from moe_model.chat.tools import MAX_PARAMETER_NAME_CHARS
from moe_model.families.minimax_m2.markers import (
    THINK_END,
    THINK_START,
    TOOL_CALLS_END,
    TOOL_CALLS_START,
)

MAX_TAG_CHARS = 256
MAX_BLANKS = 128
"""Two tags with more blanks than this between them do not follow each other."""


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
    is_token: bool = False


class NoTag(Enum):
    """Why there is no tag: it is none, the text ends too early to tell, or the output has ended."""

    NEVER = auto()
    UNDECIDED = auto()
    END = auto()


_FIXED = {
    THINK_START: TagKind.THINK_START,
    THINK_END: TagKind.THINK_END,
    TOOL_CALLS_START: TagKind.CALLS_START,
    TOOL_CALLS_END: TagKind.CALLS_END,
}
_KIND_OF_TOKEN = {chr(0xD800 + i): kind for i, kind in enumerate(_FIXED.values())}
_TEXT_OF_TOKEN = dict(zip(_KIND_OF_TOKEN, _FIXED, strict=True))
_TOKEN_OF_TEXT = {text: token for token, text in _TEXT_OF_TOKEN.items()}
MARKERS = frozenset(_FIXED)
"""Tags that are tokens."""
MARKER_KINDS = tuple(_FIXED.values())

TAG_START = re.compile("[<%s]" % "".join(_KIND_OF_TOKEN))  # noqa: UP031
"""Where a tag may begin."""
_TOKEN = re.compile("[%s]" % "".join(_KIND_OF_TOKEN))  # noqa: UP031
_SURROGATE = re.compile("[\ud800-\udfff]")

_OPENING = {"invoke": TagKind.INVOKE_START, "parameter": TagKind.PARAMETER_START}
_CLOSING = {"invoke": TagKind.INVOKE_END, "parameter": TagKind.PARAMETER_END}

_OPEN_TAG = re.compile(
    r"<\s*(invoke|parameter)\s+name\s*=\s*"
    r"""(?:"([^"<>\x00-\x1f\x7f\ud800-\udfff]+)"|'([^'"<>\x00-\x1f\x7f\ud800-\udfff]+)'"""
    r"""|([^\s'"<>\x00-\x1f\x7f\ud800-\udfff]+))\s*>"""
)
_CLOSE_TAG = re.compile(r"<\s*/\s*(invoke|parameter)\s*>")
# Every beginning of a tag above matches this; what else does only waits a little longer.
_BEGINNING = re.compile(r"<\s*(?:/\s*)?([a-z]*)(\s?)")


def marker(text: str) -> str:
    """How a marker token stands in the text; `text` is one of `MARKERS`."""
    return _TOKEN_OF_TEXT[text]


def without_surrogates(text: str) -> str:
    """Text in which nothing can be taken for a marker token."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def as_text(text: str) -> str:
    """The text with its marker tokens written out."""
    return _TOKEN.sub(lambda match: _TEXT_OF_TOKEN[match[0]], text)


def match_tag(text: str, start: int) -> Tag | NoTag:
    """The tag at `text[start]`, a match of `TAG_START`."""
    if text[start] != "<":
        return Tag(_KIND_OF_TOKEN[text[start]], start + 1, is_token=True)
    close = text.find(">", start + 1, start + MAX_TAG_CHARS)
    if close < 0:
        too_long = len(text) - start >= MAX_TAG_CHARS
        if too_long or not _may_become_tag(text[start:]):
            return NoTag.NEVER
        return NoTag.UNDECIDED
    candidate = text[start : close + 1]
    if candidate in _FIXED:
        return Tag(_FIXED[candidate], close + 1)
    if match := _OPEN_TAG.fullmatch(candidate):
        name = match[2] or match[3] or match[4]
        if not 1 <= len(name) <= MAX_PARAMETER_NAME_CHARS:
            return NoTag.NEVER
        return Tag(_OPENING[match[1]], close + 1, name)
    if match := _CLOSE_TAG.fullmatch(candidate):
        return Tag(_CLOSING[match[1]], close + 1)
    return NoTag.NEVER


def next_tag(text: str, start: int, *, is_end: bool) -> Tag | NoTag:
    """The tag at `start`, or after the blanks there.

    `NoTag.END` where the output ends, in the middle of a tag perhaps.
    """
    at = start
    while at < len(text) and at - start <= MAX_BLANKS and text[at].isspace():
        at += 1
    if at - start > MAX_BLANKS:
        return NoTag.NEVER
    if at == len(text):
        return NoTag.END if is_end else NoTag.UNDECIDED
    tag = match_tag(text, at) if TAG_START.match(text, at) else NoTag.NEVER
    return NoTag.END if is_end and tag is NoTag.UNDECIDED else tag


def _may_become_tag(beginning: str) -> bool:
    """False only for text that no continuation can turn into a tag."""
    if TAG_START.search(beginning, 1):
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
