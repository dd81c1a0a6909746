"""What does a reader of a table give? Batches of columns, and what there is to say of the file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

MOST_COLUMNS = 300
"""Of more columns, the first are looked at."""
_BATCH_ROWS = 1_000
_BATCH_CELLS = 100_000


@dataclass(frozen=True)
class Batch:
    """Some rows, by columns; a column that none of them has is left out."""

    num_rows: int
    columns: Mapping[int, Sequence[Any]]
    """Number of the column, from 0 -> cells. There may be fewer cells than rows: missing ones."""
    read_bytes: int
    """Of the file, up to here; for progress."""


@dataclass
class Facts:
    """What is known of a file besides its cells; readers add to it while they read."""

    format: str
    names: list[str] = field(default_factory=list)
    more_columns: int = 0
    """Beyond MOST_COLUMNS."""
    notes: list[str] = field(default_factory=list)
    """For people: what is unusual, and what was not looked at."""
    num_rows: int | None = None
    """If the file says so itself."""
    share_read: float = 1.0
    """Of the file; below 1 if it was sampled."""
    encoding: str | None = None
    encoding_errors: str = "strict"
    delimiter: str | None = None
    has_header: bool = True
    sheet: str | None = None
    rows_key: str | None = None
    """Of a JSON object, where its rows are."""

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


class Source(Protocol):
    """An opened file."""

    facts: Facts
    is_typed: bool
    """Whether cells are Python values, or texts."""

    def batches(self) -> Iterator[Batch]:
        """Raises TableError and OSError."""
        ...


def rows_per_batch(num_columns: int) -> int:
    """So that a batch of a very wide table is small, too."""
    return max(1, min(_BATCH_ROWS, _BATCH_CELLS // max(1, num_columns)))
