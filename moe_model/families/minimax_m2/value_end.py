"""Does a tag inside a parameter's value end the value, or is it part of it?

M2's format has no escaping, so what follows decides. A closing tag ends the value only when a whole
legal continuation follows: after closing tags a wrapper's end, an invoke of a tool on offer, a
declared parameter that was not given yet, or the end of the output. A wrapper's end is its token;
spelled with ordinary tokens it counts when the wrapper was opened that way too, or at the very end.

Two slips of a model look like a quotation at first and are told apart by what comes later, of which
at most `MAX_HELD_CHARS` are held back: an opening parameter tag at the beginning of a line without
a closing tag before it, and a call of a tool that is not offered after a whole call of one that is.
"""

from collections.abc import Callable
from dataclasses import dataclass

from moe_model.families.minimax_m2.call_arguments import CallArguments
from moe_model.families.minimax_m2.tags import TAG_START, NoTag, Tag, TagKind, match_tag, next_tag

MAX_HELD_CHARS = 2**14

_ENDS_BEFORE = {NoTag.END: True, NoTag.NEVER: False, NoTag.UNDECIDED: None}


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What may follow a value where it stands."""

    call: CallArguments
    offers: Callable[[str], bool]
    """Whether a tool of this name is on offer."""
    by_tokens: bool
    """The wrapper was opened by its token."""


def ends_value(tag: Tag, text: str, around: Surroundings, *, is_end: bool) -> bool | None:
    """Whether the closing `tag`, inside a value in `text`, ends it; None if too early to tell.

    Args:
        is_end: no more text will come.
    """
    if tag.kind is TagKind.CALLS_END:
        return _wrapper_end_ends(tag, text, around, is_end)
    if tag.kind not in (TagKind.PARAMETER_END, TagKind.INVOKE_END):
        return False
    follower = next_tag(text, tag.end, is_end=is_end)
    if not isinstance(follower, Tag):
        return _ENDS_BEFORE[follower]
    if tag.kind is TagKind.PARAMETER_END:
        if follower.kind is TagKind.PARAMETER_START:
            name = around.call.name_of(follower.name)
            return around.call.expects(name) or _others_follow(tag.end, text, around, is_end)
        if follower.kind is TagKind.INVOKE_END:
            ends = ends_value(follower, text, around, is_end=is_end)
            return _calls_follow(follower.end, text, around, is_end) if ends is False else ends
    if follower.kind is TagKind.INVOKE_START:
        return around.offers(follower.name)
    if follower.kind is TagKind.CALLS_END:
        if follower.is_token or not around.by_tokens:
            return True
        beyond = next_tag(text, follower.end, is_end=is_end)
        return False if isinstance(beyond, Tag) else _ENDS_BEFORE[beyond]
    return False


def resembles_end(tag: Tag, text: str, around: Surroundings, *, is_end: bool) -> bool:
    """Whether a closing tag that is part of a value may have been meant to end it.

    A parameter follows that has a value already, or others do that the tool does not declare, and
    nothing but whole parameters to the call's end.
    """
    follower = next_tag(text, tag.end, is_end=is_end)
    if not isinstance(follower, Tag) or follower.kind is not TagKind.PARAMETER_START:
        return False
    if around.call.has(around.call.name_of(follower.name)):
        return True
    fills, _ = _whole_calls(text, tag.end, in_call=True, is_end=is_end)
    return bool(fills) and around.by_tokens


class LostEnd:
    """Whether an opening parameter tag at the beginning of a line, in a value, opens a parameter.

    It does when the value's closing tag was forgotten, else it is quoted. Taken for forgotten when
    the rest of the call does not give that parameter, and it is one that the tool requires or
    that is no string and has a fitting value here.
    """

    def __init__(self, opening: Tag, start: int, name: str):
        self._name = name
        self._value_start = opening.end - start
        self._position = self._value_start
        self._value_end: int | None = None

    def decide(self, text: str, start: int, around: Surroundings, *, is_end: bool) -> bool | None:
        """None when it is too early to tell; goes on where it was. The tag is at `text[start]`."""
        text, is_end = _within_reach(text, start, is_end)
        while True:
            found = TAG_START.search(text, start + self._position)
            tag = match_tag(text, found.start()) if found else NoTag.UNDECIDED
            ends: bool | None = False
            if isinstance(tag, Tag):
                ends = ends_value(tag, text, around, is_end=is_end)
            if tag is NoTag.UNDECIDED or ends is None:
                return False if is_end or len(text) - start >= MAX_HELD_CHARS else None
            assert found is not None
            self._position = found.end() - start
            if not ends:
                continue
            assert isinstance(tag, Tag)
            if self._value_end is None:
                self._value_end = found.start() - start
            follower = next_tag(text, tag.end, is_end=is_end)
            if not isinstance(follower, Tag) or follower.kind is not TagKind.PARAMETER_START:
                value = text[start + self._value_start : start + self._value_end]
                return around.call.lacks(self._name, value)
            if around.call.name_of(follower.name) == self._name:
                return False
            self._position = follower.end - start


def _wrapper_end_ends(tag: Tag, text: str, around: Surroundings, is_end: bool) -> bool | None:
    """A wrapper's end without a closing tag before it."""
    if around.by_tokens and not tag.is_token:
        return False
    follower = next_tag(text, tag.end, is_end=is_end)
    if not isinstance(follower, Tag):
        return _ENDS_BEFORE[follower]
    return follower.kind is TagKind.CALLS_START and follower.is_token is tag.is_token


def _calls_follow(start: int, text: str, around: Surroundings, is_end: bool) -> bool | None:
    """Whether whole calls of tools that are not offered fill the text to the wrapper's end."""
    if not around.by_tokens:
        return False
    fills, names = _whole_calls(text, start, in_call=False, is_end=is_end)
    return bool(names) if fills else fills


def _others_follow(start: int, text: str, around: Surroundings, is_end: bool) -> bool | None:
    """Whether whole parameters, not all of them declared, fill the text to the call's end."""
    if not around.by_tokens:
        return False
    fills, names = _whole_calls(text, start, in_call=True, is_end=is_end)
    return around.call.may_be_misnamed(names[0]) if fills else fills


def _whole_calls(
    text: str, start: int, *, in_call: bool, is_end: bool
) -> tuple[bool | None, list[list[str]]]:
    """Whether whole parameters and calls fill the text to the wrapper's end; their names by call.

    None when it is too early to tell.
    """
    text, is_end = _within_reach(text, start, is_end)
    names: list[list[str]] = [[]] if in_call else []
    at = start
    while True:
        tag = next_tag(text, at, is_end=is_end)
        if not isinstance(tag, Tag):
            undecided = tag is NoTag.UNDECIDED and len(text) - start < MAX_HELD_CHARS
            return None if undecided else tag is NoTag.END and not in_call, names
        at = tag.end
        if in_call and tag.kind is TagKind.PARAMETER_START:
            names[-1].append(tag.name)
            end = _end_of_plain_value(text, at)
            if end is None or end < 0:
                undecided = end is None and not is_end and len(text) - start < MAX_HELD_CHARS
                return None if undecided else False, names
            at = end
        elif in_call and tag.kind is TagKind.INVOKE_END:
            in_call = False
        elif not in_call and tag.kind is TagKind.INVOKE_START:
            in_call = True
            names.append([])
        else:
            return not in_call and tag.kind is TagKind.CALLS_END and tag.is_token, names


def _end_of_plain_value(text: str, start: int) -> int | None:
    """End of a value without tags, behind its closing tag; -1 if it has tags, None if unknown."""
    for found in TAG_START.finditer(text, start):
        tag = match_tag(text, found.start())
        if isinstance(tag, Tag):
            return tag.end if tag.kind is TagKind.PARAMETER_END else -1
        if tag is NoTag.UNDECIDED:
            return None
    return None


def _within_reach(text: str, start: int, is_end: bool) -> tuple[str, bool]:
    """As much text as may be held back: decisions see no more, however the text is cut."""
    reach = start + MAX_HELD_CHARS
    return text[:reach], is_end and len(text) <= reach
