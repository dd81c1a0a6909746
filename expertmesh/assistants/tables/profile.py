"""What is in a file of data? `profile_file(path)` says it, in bounded time and memory."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from expertmesh.assistants.tables.cells import shown_cell
from expertmesh.assistants.tables.columns import Column, ColumnSummary
from expertmesh.assistants.tables.csv_table import CsvTable, text_head
from expertmesh.assistants.tables.json_table import JsonLinesTable, JsonTable
from expertmesh.assistants.tables.library_tables import ParquetTable, WorkbookTable
from expertmesh.assistants.tables.sniff import TableError
from expertmesh.assistants.tables.source import Batch, Facts, Source

FIRST_ROWS = 3
_LINES = (".jsonl", ".ndjson", ".jsonlines")

Progress = Callable[[int, int], None]
"""Hears how many bytes were read, of how many."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A file of data. `facts` are about the file, `columns` about what was read of it."""

    name: str
    size_bytes: int
    facts: Facts
    rows_read: int
    columns: tuple[Column, ...]
    first_rows: tuple[tuple[str, ...], ...]

    @property
    def is_sampled(self) -> bool:
        return self.facts.share_read < 1

    @property
    def num_rows(self) -> int:
        """Of the whole file; an estimate if `is_sampled` and the file does not say it."""
        if self.facts.num_rows is not None:
            return self.facts.num_rows
        return round(self.rows_read / self.facts.share_read) if self.rows_read else 0

    @property
    def num_rows_is_estimate(self) -> bool:
        return self.is_sampled and self.facts.num_rows is None

    def column(self, name: str) -> Column:
        """Raises ValueError, naming some that there are."""
        for one in self.columns:
            if one.name == shown_cell(name):
                return one
        names = ", ".join(one.name for one in self.columns[:20])
        raise ValueError(f"--column: {self.name} has no column {name!r}; it has {names}")

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "file": self.name,
            "size_bytes": self.size_bytes,
            "rows": self.num_rows,
            "rows_are_estimated": self.num_rows_is_estimate,
            "rows_read": self.rows_read,
            **asdict(self.facts),
            "columns": [asdict(one) for one in self.columns],
        }


def open_table(path: Path, *, encoding: str | None = None, delimiter: str | None = None) -> Source:
    """By its name, and by how it begins. Raises TableError and OSError."""
    if path.is_dir():
        raise TableError("this is a folder; give a file of data")
    if not path.is_file():
        if path.exists():
            raise TableError("this is no regular file: save it as one first")
        raise TableError("there is no such file")
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        magic = file.read(4)
    if suffix in (".xlsx", ".xlsm"):
        return WorkbookTable(path)
    if suffix in (".parquet", ".pq") or magic == b"PAR1":
        return ParquetTable(path)
    if suffix in _LINES:
        return JsonLinesTable(path, encoding=encoding)
    if suffix in (".csv", ".tsv", ".tab"):
        return CsvTable(path, encoding=encoding, delimiter=delimiter)
    head = text_head(path, encoding)[0].lstrip("\ufeff \t\r\n")
    if suffix == ".json" or head[:1] in ("[", "{"):
        one_a_line = head.startswith("{") and _is_object(head.partition("\n")[0])
        is_lines = one_a_line and _is_object(head.partition("\n")[2].partition("\n")[0])
        return (JsonLinesTable if is_lines else JsonTable)(path, encoding=encoding)
    return CsvTable(path, encoding=encoding, delimiter=delimiter)


def profile_file(
    path: Path,
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Profile:
    """Raises TableError, whose message begins with the file's name, and OSError."""
    try:
        source = open_table(path, encoding=encoding, delimiter=delimiter)
        return _profile(path, source, progress)
    except TableError as error:
        raise TableError(f"{path}: {error}") from None


def _profile(path: Path, source: Source, progress: Progress) -> Profile:
    facts, summaries, rows_read = source.facts, dict[int, ColumnSummary](), 0
    first_rows: tuple[tuple[str, ...], ...] = ()
    size_bytes = path.stat().st_size
    for batch in source.batches():
        if not rows_read:
            first_rows = _first_rows(batch)
        rows_read += batch.num_rows
        for number, cells in batch.columns.items():
            summary = summaries.get(number)
            if summary is None:
                summary = summaries[number] = ColumnSummary(facts.names[number])
            (summary.add_values if source.is_typed else summary.add_texts)(cells)
        progress(batch.read_bytes, round(size_bytes * facts.share_read))
    empty = (ColumnSummary(name) for name in facts.names)
    columns = [summaries.get(number, one) for number, one in enumerate(empty)]
    if not rows_read:
        facts.note("it has no rows")
    return Profile(
        name=shown_cell(path.name),
        size_bytes=size_bytes,
        facts=facts,
        rows_read=rows_read,
        columns=tuple(one.finish(rows_read) for one in columns),
        first_rows=first_rows,
    )


def _first_rows(batch: Batch) -> tuple[tuple[str, ...], ...]:
    """Of the columns that all of these rows have."""
    whole = [cells for cells in batch.columns.values() if len(cells) == batch.num_rows]
    rows = range(min(FIRST_ROWS, batch.num_rows))
    return tuple(
        tuple(shown_cell("" if cells[at] is None else str(cells[at]), 30) for cells in whole)
        for at in rows
    )


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
