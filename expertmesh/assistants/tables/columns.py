"""What is in a column? Collected batch by batch, in memory that does not grow with the rows."""

import datetime
import decimal
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expertmesh.assistants.tables.cells import CELL_CHARS, NAME_CHARS, shown_cell
from expertmesh.assistants.tables.kinds import (
    BOOLEANS,
    DATES,
    MISSING,
    NUMBERS,
    Kind,
    kind_of,
    number_kind,
)
from expertmesh.assistants.tables.reservoir import Reservoir

MOST_DISTINCT = 10_000
MOST_COUNTED = 1_000
NUM_COMMON = 5
NUM_EXAMPLES = 3
_MAINLY = 0.9
"""From this share on, a column is one of numbers or dates, with exceptions."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """All texts are shortened, with control characters as escapes."""

    name: str
    kind: Kind
    filled: int
    missing: int
    distinct: int
    """At most MOST_DISTINCT."""
    distinct_is_least: bool
    """There are more than `distinct`."""
    least: str | None = None
    """Smallest number or earliest date."""
    greatest: str | None = None
    mean: float | None = None
    quartiles: tuple[float, float, float] | None = None
    quartiles_are_sampled: bool = False
    common: tuple[tuple[str, int], ...] = ()
    """The most frequent values, if they could be counted and one occurs more than once."""
    examples: tuple[str, ...] = ()
    mixture: tuple[tuple[Kind, int], ...] = ()
    """Kinds and their cells, where there are several."""
    exceptions: int = 0
    """Cells of another kind than the column's."""
    exception_examples: tuple[str, ...] = ()
    longest_chars: int = 0


class ColumnSummary:
    """Takes a column's cells and says what they have in common."""

    def __init__(self, name: str):
        self.name = name
        self._kinds: Counter[Kind] = Counter()
        self._filled = 0
        self._known: dict[str, Kind] = {}
        self._hashes: set[int] = set()
        self._has_more = False
        self._counts: Counter[str] | None = Counter()
        self._examples: dict[Kind, list[str]] = {}
        self._least: float | None = None
        self._greatest: float | None = None
        self._sum = 0.0
        self._numbers = 0
        self._sample = Reservoir()
        self._first_date = self._last_date = ""
        self._longest_chars = 0

    def add_texts(self, cells: Iterable[str]) -> None:
        """Cells of a file that knows only text."""
        texts = [text for text in map(str.strip, cells) if text not in MISSING]
        if not texts:
            return
        kind = number_kind(texts)
        if kind is not None:
            self._add_numbers(kind, texts, list(map(int if kind is Kind.INTEGER else float, texts)))
            return
        groups: dict[Kind, dict[str, int]] = {}
        for text, count in Counter(texts).items():
            known = self._known.get(text)
            if known is None:
                known = kind_of(text)
                if len(self._known) < MOST_COUNTED:
                    self._known[text] = known
            groups.setdefault(known, {})[text] = count
        for one, counts in groups.items():
            self._add_group(one, counts)

    def add_values(self, cells: Iterable[Any]) -> None:
        """Cells of a file that knows numbers, truth values, and what is nested."""
        groups: dict[Kind, Counter[str]] = {}
        for kind, text in map(_judged, cells):
            groups.setdefault(kind, Counter())[text] += 1
        groups.pop(Kind.EMPTY, None)
        for kind, counts in groups.items():
            self._add_group(kind, counts)

    def finish(self, num_rows: int) -> Column:
        """`num_rows`: those whose cells were added, missing ones included."""
        kind = self._kind()
        of_kind = _alike(kind)
        others = [one for one in self._examples if one not in of_kind]
        examples = [
            text for one in self._examples if one in of_kind for text in self._examples[one]
        ]
        exceptional = [text for one in others for text in self._examples[one]]
        is_number, is_date = kind in NUMBERS, kind in DATES
        mean = self._sum / self._numbers if is_number else None
        return Column(
            name=shown_cell(self.name, NAME_CHARS),
            kind=kind,
            filled=self._filled,
            missing=num_rows - self._filled,
            distinct=len(self._hashes),
            distinct_is_least=self._has_more,
            least=_written(self._least) if is_number else self._first_date if is_date else None,
            greatest=_written(self._greatest)
            if is_number
            else self._last_date
            if is_date
            else None,
            mean=mean if mean is not None and math.isfinite(mean) else None,
            quartiles=self._quartiles() if is_number else None,
            quartiles_are_sampled=is_number and self._numbers > self._sample.size,
            common=self._common(),
            examples=tuple(examples[:NUM_EXAMPLES]),
            mixture=tuple(self._kinds.most_common()) if len(self._kinds) > 1 else (),
            exceptions=sum(self._kinds[one] for one in others),
            exception_examples=tuple(exceptional[:NUM_EXAMPLES]),
            longest_chars=self._longest_chars,
        )

    def _add_group(self, kind: Kind, counts: Mapping[str, int]) -> None:
        if kind in NUMBERS:
            texts = [text for text, count in counts.items() for _ in range(count)]
            self._add_numbers(kind, texts, list(map(int if kind is Kind.INTEGER else float, texts)))
            return
        self._add(kind, counts)
        if kind in DATES:
            self._first_date = min(self._first_date or min(counts), *counts)
            self._last_date = max(self._last_date, *counts)

    def _add_numbers(self, kind: Kind, texts: Sequence[str], numbers: Sequence[float]) -> None:
        if not all(map(math.isfinite, numbers)):  # such as 1e999
            finite = [at for at, number in enumerate(numbers) if math.isfinite(number)]
            self._add(Kind.TEXT, Counter(one for one in texts if not math.isfinite(float(one))))
            texts, numbers = [texts[at] for at in finite], [numbers[at] for at in finite]
            if not numbers:
                return
        self._add(kind, Counter(texts))
        least, greatest = min(numbers), max(numbers)
        self._least = least if self._least is None else min(self._least, least)
        self._greatest = greatest if self._greatest is None else max(self._greatest, greatest)
        self._numbers += len(numbers)
        self._sum += sum(map(float, numbers))
        self._sample.add(numbers)

    def _add(self, kind: Kind, counts: Mapping[str, int]) -> None:
        total = sum(counts.values())
        self._kinds[kind] += total
        self._filled += total
        examples = self._examples.setdefault(kind, [])
        if len(examples) < NUM_EXAMPLES:
            for text in counts:
                shown = shown_cell(text)
                if shown not in examples:
                    examples.append(shown)
                if len(examples) == NUM_EXAMPLES:
                    break
        self._longest_chars = max(self._longest_chars, max(map(len, counts)))
        if not self._has_more:
            self._hashes.update(map(hash, counts))
            if len(self._hashes) > MOST_DISTINCT:
                self._has_more = True
                self._hashes = set(list(self._hashes)[:MOST_DISTINCT])
        if self._counts is not None:
            for text, count in counts.items():
                self._counts[text[: CELL_CHARS + 1]] += count
            if len(self._counts) > MOST_COUNTED:
                self._counts = None

    def _kind(self) -> Kind:
        """The kind of nearly all cells, else text."""
        if not self._filled:
            return Kind.EMPTY
        present = {one for one, count in self._kinds.items() if count}
        few = self._counts if self._counts is not None and len(self._counts) <= 2 else ("",)
        if present == {Kind.TEXT} and all(one.lower() in BOOLEANS for one in few):
            return Kind.BOOLEAN
        for kinds, wider in ((NUMBERS, Kind.DECIMAL), (DATES, Kind.DATETIME)):
            if sum(self._kinds[one] for one in kinds) >= _MAINLY * self._filled:
                both = kinds & present
                return wider if len(both) > 1 else next(iter(both))
        return next(iter(present)) if len(present) == 1 else Kind.TEXT

    def _quartiles(self) -> tuple[float, float, float]:
        low, middle, high = self._sample.quantiles((0.25, 0.5, 0.75))
        return low, middle, high

    def _common(self) -> tuple[tuple[str, int], ...]:
        if self._counts is None or not self._counts:
            return ()
        best = sorted(self._counts.items(), key=lambda one: (-one[1], one[0]))[:NUM_COMMON]
        return tuple((shown_cell(text), count) for text, count in best) if best[0][1] > 1 else ()


def _alike(kind: Kind) -> frozenset[Kind]:
    """The kinds whose cells are no exceptions in a column of this kind."""
    if kind is Kind.DECIMAL:
        return NUMBERS
    if kind is Kind.DATETIME:
        return DATES
    if kind in (Kind.TEXT, Kind.BOOLEAN):
        return frozenset(Kind)
    return frozenset((kind,))


def _judged(cell: Any) -> tuple[Kind, str]:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return Kind.EMPTY, ""
    if isinstance(cell, bool):
        return Kind.BOOLEAN, str(cell).lower()
    if isinstance(cell, int):
        if abs(cell) < 10**18:
            return Kind.INTEGER, str(cell)
        return Kind.TEXT, str(cell) if abs(cell) < 10**60 else "a number of over 60 digits"
    if isinstance(cell, float | decimal.Decimal):
        return Kind.DECIMAL, str(cell)
    if isinstance(cell, datetime.datetime):
        return Kind.DATETIME, cell.isoformat(sep=" ")
    if isinstance(cell, datetime.date):
        return Kind.DATE, cell.isoformat()
    if isinstance(cell, list | dict):
        kind = Kind.LIST if isinstance(cell, list) else Kind.OBJECT
        return kind, json.dumps(cell, ensure_ascii=False, default=str)
    text = str(cell).strip()
    if not text:
        return Kind.EMPTY, ""
    kind = kind_of(text)
    return (kind if kind in DATES else Kind.TEXT), text


def _written(number: float | None) -> str:
    return f"{number:.10g}" if isinstance(number, float) else str(number)
