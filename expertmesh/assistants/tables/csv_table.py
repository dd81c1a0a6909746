"""How is a CSV file read? By columns, with what was found out about how it is written."""

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path

from expertmesh.assistants.tables import pieces
from expertmesh.assistants.tables.sniff import (
    HEAD_BYTES,
    Encoding,
    TableError,
    delimiter_of,
    encoding_of,
    has_header,
    refuse_binary,
    sample_rows,
)
from expertmesh.assistants.tables.source import MOST_COLUMNS, Batch, Facts, rows_per_batch


def text_head(path: Path, encoding: str | None) -> tuple[str, Encoding]:
    """The beginning of a text file, and its encoding. Raises TableError and OSError."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    refuse_binary(head)
    is_sampled = path.stat().st_size > pieces.WHOLE_BYTES
    bad = pieces.first_bad_byte(path, HEAD_BYTES if is_sampled else pieces.WHOLE_BYTES)
    found = encoding_of(head, bad, encoding)
    return head.decode(found.name, "replace"), found


class CsvTable:
    """Rows of cells that are text."""

    is_typed = False

    def __init__(self, path: Path, *, encoding: str | None = None, delimiter: str | None = None):
        """`encoding`, `delimiter`: if the user says so. Raises TableError and OSError."""
        self._path = path
        head, self._encoding = text_head(path, encoding)
        if not head.strip():
            raise TableError("the file is empty")
        is_tsv = path.suffix.lower() in (".tsv", ".tab")
        self._delimiter = delimiter or delimiter_of(head, prefers_tab=is_tsv)
        rows = sample_rows(head, self._delimiter)
        if not rows:
            raise TableError("its first row has no end: is a quotation mark not closed?")
        named = has_header(rows)
        self._width = len(rows[0]) if named else max(map(len, rows))
        names = [name.strip() or f"column {at}" for at, name in enumerate(rows[0], 1)]
        if not named:
            names = [f"column {at}" for at in range(1, self._width + 1)]
        self.facts = Facts(
            format="TSV" if self._delimiter == "\t" else "CSV",
            names=names[:MOST_COLUMNS],
            more_columns=max(0, self._width - MOST_COLUMNS),
            encoding=self._encoding.name,
            encoding_errors=self._encoding.errors,
            delimiter=self._delimiter,
            has_header=named,
        )
        for note in (
            self._encoding.note,
            "" if named else "the first row looks like data: the columns have no names",
            "some columns have the same name" if len(set(names)) < len(names) else "",
        ):
            if note:
                self.facts.note(note)
        has_long_cells = any("\n" in cell for row in rows for cell in row)
        self._only_head = has_long_cells or not pieces.can_start_anywhere(self._encoding)

    def batches(self) -> Iterator[Batch]:
        """A batch holds rows of one piece of the file."""
        size_bytes = self._path.stat().st_size
        self.facts.share_read = pieces.read_bytes_of(size_bytes) / max(1, size_bytes)
        is_sampled, others = size_bytes > pieces.WHOLE_BYTES, 0
        if is_sampled:
            self.facts.note(_sampled(size_bytes, only_head=self._only_head))
        for piece in pieces.pieces_of(self._path, self._encoding, only_head=self._only_head):
            reader = csv.reader(piece.lines, delimiter=self._delimiter)
            if piece.is_first and self.facts.has_header:
                self._skip_header(reader)
            for rows in self._rows(reader):
                fitting = [row for row in rows if len(row) == self._width]
                others += len(rows) - len(fitting)
                if is_sampled and not piece.is_first:
                    rows = fitting  # a piece may begin in the middle of a cell
                yield self._batch(rows, piece.end_bytes)
        if others:
            told = f"{others:,} rows have more or fewer cells than the {self._width} columns"
            self.facts.note(told)

    def _skip_header(self, reader: Iterator[list[str]]) -> None:
        for row in reader:
            if row:
                return

    def _rows(self, reader: Iterator[list[str]]) -> Iterator[list[list[str]]]:
        """To the end, or to where the file can no longer be understood."""
        size = rows_per_batch(self._width)
        while True:
            batch: list[list[str]] = []
            try:
                batch.extend(itertools.islice(reader, size))
            except csv.Error as error:
                line = reader.line_num  # type: ignore[attr-defined]
                why = f"{error}; is a quotation mark before it not closed?"
                self.facts.note(f"reading ended at line {line:,}: {why}")
                size = 0
            rows = [row for row in batch if row]  # csv gives an empty list for an empty line
            if rows:
                yield rows
            if not size or not batch:
                return

    def _batch(self, rows: list[list[str]], end_bytes: int) -> Batch:
        width = min(self._width, MOST_COLUMNS)
        columns = itertools.islice(itertools.zip_longest(*rows, fillvalue=""), width)
        return Batch(len(rows), dict(enumerate(columns)), end_bytes)


def _sampled(size_bytes: int, *, only_head: bool) -> str:
    read = pieces.read_bytes_of(size_bytes) >> 20
    where = "at its beginning" if only_head else f"in {pieces.NUM_PIECES} places"
    return f"the file has {size_bytes >> 20:,} MiB: {read} MiB were read, {where}"
