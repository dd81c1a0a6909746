"""What does a rendered prompt consist of?"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Segment:
    """A stretch of a rendered prompt.

    `is_marker` means: exactly one added token's text, written by the template itself. Everything
    else is text, whatever it looks like, and is encoded without any added token.
    """

    text: str
    is_marker: bool
