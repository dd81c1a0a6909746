"""Does a closing tag inside a parameter's value end the value, or is it part of it?

M2's format has no escaping, so what follows decides: the tag ends the value only when the next
non-blank text is one that can follow there, or when the output ends.
"""

from minimax_m2.chat.tags import NoTag, Tag, TagKind, match_tag

MAX_BLANKS = 128  # more blanks than this after the tag make it text

_FOLLOWERS: dict[TagKind, tuple[TagKind, ...]] = {
    TagKind.PARAMETER_END: (
        TagKind.PARAMETER_START,
        TagKind.INVOKE_END,
        TagKind.INVOKE_START,
        TagKind.CALLS_END,
    ),
    TagKind.INVOKE_END: (TagKind.INVOKE_START, TagKind.CALLS_END),
    TagKind.CALLS_END: (TagKind.CALLS_START,),
}


def ends_value(tag: Tag, text: str, *, is_end: bool) -> bool | None:
    """Whether `tag`, found in `text` inside a value, ends it; None when it is too early to tell.

    Args:
        is_end: no more text will come.
    """
    if tag.kind not in _FOLLOWERS:
        return False
    at = tag.end
    while at < len(text) and at - tag.end <= MAX_BLANKS and text[at].isspace():
        at += 1
    if at - tag.end > MAX_BLANKS:
        return False
    if at == len(text):
        return True if is_end else None
    if text[at] != "<":
        return False
    follower = match_tag(text, at, is_end=is_end)
    if follower is NoTag.UNDECIDED:
        return None
    return isinstance(follower, Tag) and follower.kind in _FOLLOWERS[tag.kind]
