"""Where does what an answer says come from? Sources have numbers, and the answer cites them."""

import re
from dataclasses import dataclass

from expertmesh.agent.tools.tool import Source

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_CITATION = re.compile(r"\[(\d{1,4}(?:\s*[,，、]\s*\d{1,4})*)\](?!\()")


@dataclass(frozen=True)
class Citations:
    """The numbers that an answer names, in order of appearance."""

    known: tuple[int, ...]
    unknown: tuple[int, ...]


class Ledger:
    """All sources of a run, numbered from 1 in the order in which they were read."""

    def __init__(self) -> None:
        self.sources: list[Source] = []
        self._numbers: dict[tuple[str, str], int] = {}

    def add(self, source: Source) -> int:
        """Its number; the same text read again at the same place keeps its own."""
        key = (source.place, source.sha256)
        if key not in self._numbers:
            self.sources.append(source)
            self._numbers[key] = len(self.sources)
        return self._numbers[key]

    def citations(self, answer: str) -> Citations:
        """What the answer cites as [n] or [n, m], code apart; nothing if there are no sources."""
        numbers: dict[int, None] = {}
        for found in _CITATION.finditer(_CODE.sub(" ", answer)):
            numbers |= dict.fromkeys(int(one) for one in re.split(r"\D+", found[1]))
        if not self.sources:
            return Citations((), ())
        known = tuple(one for one in numbers if 1 <= one <= len(self.sources))
        return Citations(known, tuple(one for one in numbers if one not in known))

    def line(self, number: int) -> str:
        """For the list below an answer."""
        excerpt = " ".join(self.sources[number - 1].excerpt.split())[:80]
        return f"[{number}] {self.sources[number - 1].place}: {excerpt}"
