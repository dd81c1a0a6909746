"""What is a rendered prompt made of?"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Segment:
    """A stretch of a rendered prompt.

    With `is_marker` it is the text of exactly one added token, written by the template itself.
    Everything else is text, whatever it looks like, and is encoded without any added token.
    """

    text: str
    is_marker: bool
