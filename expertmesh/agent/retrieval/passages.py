"""Into which passages is a text divided?"""

from collections.abc import Iterator
from dataclasses import dataclass

PASSAGE_CHARS = 1200
_EARLY_CHARS = 600
"""From here on a passage ends at the next paragraph."""


@dataclass(frozen=True)
class Passage:
    """Some lines of a text."""

    first_line: int
    last_line: int
    text: str


def passages(text: str) -> Iterator[Passage]:
    """All of the text in order, without its empty passages; lines count from 1.

    A passage ends before a heading or at an empty line once it is long enough. A line that is
    longer than a whole passage is cut.
    """
    lines: list[str] = []
    first, size = 1, 0
    for number, line in enumerate(text.split("\n"), 1):
        ends = size >= _EARLY_CHARS and (not line.strip() or line.startswith("#"))
        if lines and (ends or size + len(line) > PASSAGE_CHARS):
            yield from _passage(first, lines)
            lines, size = [], 0
        if not lines:
            first = number
        lines.append(line)
        size += len(line) + 1
    yield from _passage(first, lines)


def _passage(first: int, lines: list[str]) -> Iterator[Passage]:
    """Without empty lines before and after it."""
    while lines and not lines[-1].strip():
        lines.pop()
    while lines and not lines[0].strip():
        first += 1
        lines.pop(0)
    last = first + len(lines) - 1
    text = "\n".join(lines)
    for start in range(0, len(text), PASSAGE_CHARS):
        part = text[start : start + PASSAGE_CHARS]
        if part.strip():
            yield Passage(first, last, part)
