"""Does a text say numbers that stand nowhere in what it is about? A cheap check, not a proof.

A number of the text is found if a number of the sources rounds to it: at the last digit that the
text writes, half up or half down. Signs do not count ("fell by 3"), 12 % is 12 or 0.12, and 1.2
million is 1,200,000. A number that the model computed itself is not found, even if it is right.
"""

import bisect
import re
from collections.abc import Iterable
from dataclasses import dataclass

_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.])(?:(?P<grouped>[0-9]{1,3}(?:,[0-9]{3})+)|(?P<plain>[0-9]+))"
    r"(?:\.(?P<decimals>[0-9]+))?(?P<exponent>[eE][+-]?[0-9]{1,3})?(?![0-9])"
)
_SCALE = re.compile(
    r"\s?(?P<word>%|percent|per cent|thousand|million|billion|[kKMB]\b|\u2030|\u4e07\u4ebf|\u4e07"
    r"|\u4ebf|\u5343|\u767e\u4e07)"
)
_SCALES = {
    "%": 0.01, "percent": 0.01, "per cent": 0.01, "\u2030": 0.001, "k": 1e3, "K": 1e3,
    "thousand": 1e3, "\u5343": 1e3, "\u4e07": 1e4, "M": 1e6, "million": 1e6, "\u767e\u4e07": 1e6,
    "\u4ebf": 1e8, "B": 1e9, "billion": 1e9, "\u4e07\u4ebf": 1e12,
}  # fmt: skip
_LIST_ITEM = re.compile(r"^[ \t]*(?:[0-9]{1,3}(?:[.)]\s|\u3001)|\[[0-9]+\])", re.MULTILINE)
_MOST_SOURCES = 200_000


@dataclass(frozen=True)
class Number:
    """A number as it is written in a text, with the word or sign that scales it."""

    text: str
    start: int
    end: int
    value: float
    half_unit: float
    """Half of what its last digit counts."""
    scale: float
    """0.01 for 12 %, 1e6 for 1.2 million; 1 without such a word."""

    def readings(self) -> tuple[tuple[float, float], ...]:
        """(value, half unit) of the number as it stands, and with its word."""
        plain = (self.value, self.half_unit)
        if self.scale == 1.0:
            return (plain,)
        return plain, (self.value * self.scale, self.half_unit * self.scale)


def numbers_in(text: str) -> list[Number]:
    """All of them, without the numbers of list items."""
    items = [one.span() for one in _LIST_ITEM.finditer(text)]
    found = []
    for match in _NUMBER.finditer(text):
        if any(start <= match.start() < end for start, end in items):
            continue
        digits = (match["grouped"] or match["plain"]).replace(",", "")[:300]
        decimals, exponent = match["decimals"] or "", match["exponent"] or ""
        value = float(f"{digits}.{decimals}{exponent}")
        half_unit = 0.5 * 10.0 ** (int(exponent[1:] or 0) - min(len(decimals), 300))
        word = _SCALE.match(text, match.end())
        scale = _SCALES[word["word"]] if word else 1.0
        end = word.end() if word else match.end()
        text_of = text[match.start() : end]
        found.append(Number(text_of, match.start(), end, value, half_unit, scale))
    return found


class Numbers:
    """All numbers of some texts, to look others up in."""

    def __init__(self, texts: Iterable[str]):
        values: set[float] = set()
        for text in texts:
            for one in numbers_in(text):
                values.update(value for value, _ in one.readings())
                if len(values) > _MOST_SOURCES:
                    break
        self._values = sorted(values)

    def has(self, number: Number) -> bool:
        """Whether one of them rounds to it."""
        return any(self._has(value, half) for value, half in number.readings())

    def _has(self, value: float, half_unit: float) -> bool:
        room = half_unit + 1e-9 * abs(value)
        at = bisect.bisect_left(self._values, value - room)
        return at < len(self._values) and self._values[at] <= value + room


def unfounded(text: str, sources: Iterable[str]) -> list[Number]:
    """The numbers of the text that are in none of the sources."""
    known = Numbers(sources)
    return [one for one in numbers_in(text) if not known.has(one)]


def with_marks(text: str, numbers: Iterable[Number], mark: str) -> str:
    """The text with ` [mark]` after each of these numbers of it."""
    parts, place = [], 0
    for one in numbers:
        parts += [text[place : one.end], f" [{mark}]"]
        place = one.end
    return "".join([*parts, text[place:]])
