"""How are Parquet files and Excel workbooks read? By a library, if it is installed."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from expertmesh.assistants.tables.cells import shown_cell
from expertmesh.assistants.tables.sniff import TableError
from expertmesh.assistants.tables.source import MOST_COLUMNS, Batch, Facts, rows_per_batch

MOST_ROWS = 200_000
"""Of these files, rows are read from the beginning."""
MOST_UNPACKED_BYTES = 512 << 20


class ParquetTable:
    """Rows by pyarrow."""

    is_typed = True

    def __init__(self, path: Path):
        """Raises TableError, also if pyarrow is not installed."""
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise TableError("reading Parquet needs pyarrow: pip install pyarrow") from None
        try:
            self._file = pyarrow.parquet.ParquetFile(path)
        except pyarrow.ArrowException as error:
            raise TableError(f"it is no Parquet file: {error}") from None
        self._errors = pyarrow.ArrowException
        names = [str(one) for one in self._file.schema_arrow.names]
        self.facts = Facts(
            format="Parquet",
            names=names[:MOST_COLUMNS],
            more_columns=max(0, len(names) - MOST_COLUMNS),
            num_rows=int(self._file.metadata.num_rows),
        )
        self._size_bytes = path.stat().st_size

    def batches(self) -> Iterator[Batch]:
        total, read = self.facts.num_rows or 0, 0
        if total > MOST_ROWS:
            self.facts.share_read = MOST_ROWS / total
            self.facts.note(f"of {total:,} rows, the first {MOST_ROWS:,} were read")
        size = rows_per_batch(len(self.facts.names))
        try:
            for batch in self._file.iter_batches(batch_size=size, columns=self.facts.names):
                cells = {at: one.to_pylist() for at, one in enumerate(batch.columns)}
                read += batch.num_rows
                yield Batch(batch.num_rows, cells, self._size_bytes * read // max(1, total))
                if read >= MOST_ROWS:
                    return
        except self._errors as error:
            raise TableError(f"it cannot be read: {error}") from None


class WorkbookTable:
    """Rows of the first sheet of a workbook, by openpyxl."""

    is_typed = True

    def __init__(self, path: Path):
        """Raises TableError, also if openpyxl is not installed."""
        try:
            import openpyxl
        except ImportError:
            raise TableError(
                "reading Excel workbooks needs openpyxl: pip install openpyxl"
            ) from None
        refuse_bombs(path)
        try:
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
            sheet = book.worksheets[0]
            rows = sheet.iter_rows(values_only=True)
            first = next((row for row in rows if any(cell is not None for cell in row)), ())
        except (OSError, MemoryError):
            raise
        except Exception as error:  # openpyxl raises whatever it stumbles on
            raise TableError(f"it is no Excel workbook: {error}") from None
        if not first:
            raise TableError(f"its first sheet, {shown_cell(sheet.title)}, is empty")
        self._rows, self._size_bytes = rows, path.stat().st_size
        names = [str(one) if one is not None else f"column {at}" for at, one in enumerate(first, 1)]
        self.facts = Facts(
            format="Excel workbook",
            names=names[:MOST_COLUMNS],
            more_columns=max(0, len(names) - MOST_COLUMNS),
            sheet=sheet.title,
        )
        if len(book.sheetnames) > 1:
            others = ", ".join(map(shown_cell, book.sheetnames[1:6]))
            self.facts.note(f"only the first sheet was read; the others are {others}")

    def batches(self) -> Iterator[Batch]:
        width, read = len(self.facts.names), 0
        size = rows_per_batch(width)
        rows: list[tuple[Any, ...]] = []
        for row in self._rows:
            if all(cell is None for cell in row):
                continue
            rows.append(row[:width])
            if len(rows) == size:
                read += size
                yield self._batch(rows)
                rows = []
                if read >= MOST_ROWS:
                    self.facts.note(f"only the first {MOST_ROWS:,} rows were read")
                    return
        if rows:
            yield self._batch(rows)

    def _batch(self, rows: list[tuple[Any, ...]]) -> Batch:
        columns = {at: [row[at] for row in rows if at < len(row)] for at in range(len(rows[0]))}
        return Batch(len(rows), columns, self._size_bytes)


def refuse_bombs(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(one.file_size for one in archive.infolist())
    except zipfile.BadZipFile:
        raise TableError("it is no Excel workbook") from None
    if unpacked > MOST_UNPACKED_BYTES:
        raise TableError(f"it unpacks to more than {MOST_UNPACKED_BYTES >> 20} MiB")
