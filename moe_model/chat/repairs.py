"""What of a conversation could not be rendered as it was sent, and how often?"""

from collections import Counter
from enum import StrEnum


class Repair(StrEnum):
    """Kinds of what was said before that are read as what they mean, or shown as text."""

    ARGUMENTS = "arguments"
    """A call's arguments are not plainly one JSON object."""
    NAME = "name"
    """A name of a call or parameter is missing, or cannot stand between the format's quotes."""
    CALLS = "calls"
    """Something in `tool_calls` is not a call."""
    CONTENT = "content"
    """A content, or a part of it, that is not text: an image, an object, a number."""
    RESULT = "result"
    """A tool's result whose call is not in the conversation."""
    ROLE = "role"
    """An unknown role."""
    TEXT = "text"
    """A message with lone surrogates."""


Repairs = Counter[Repair]
