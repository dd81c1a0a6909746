"""How are JSON lines, and a JSON array of objects, read? Object by object, in batches."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from expertmesh.assistants.tables import pieces
from expertmesh.assistants.tables.cells import shown_cell
from expertmesh.assistants.tables.csv_table import _sampled, text_head
from expertmesh.assistants.tables.sniff import TableError
from expertmesh.assistants.tables.source import MOST_COLUMNS, Batch, Facts

MOST_JSON_BYTES = 64 << 20
"""Of an array, which can only be read as a whole."""
_BATCH_OBJECTS = 500


class Columns:
    """Numbers the keys of objects in their order of appearance."""

    def __init__(self, facts: Facts):
        self._facts = facts
        self._numbers: dict[str, int] = {}
        self._beyond: set[int] = set()

    def batch(self, objects: list[dict[str, Any]], read_bytes: int) -> Batch:
        columns: dict[int, list[Any]] = {}
        for one in objects:
            for key, value in one.items():
                number = self._numbers.get(key)
                if number is None:
                    number = self._new(key)
                if number >= 0:
                    columns.setdefault(number, []).append(value)
        return Batch(len(objects), columns, read_bytes)

    def _new(self, key: str) -> int:
        if len(self._numbers) < MOST_COLUMNS:
            self._numbers[key] = len(self._numbers)
            self._facts.names.append(key)
            return self._numbers[key]
        if len(self._beyond) < 100_000:
            self._beyond.add(hash(key))
            self._facts.more_columns = len(self._beyond)
        return -1


class JsonLinesTable:
    """An object in each line."""

    is_typed = True

    def __init__(self, path: Path, *, encoding: str | None = None):
        self._path = path
        _, self._encoding = text_head(path, encoding)
        self.facts = Facts(
            format="JSON lines",
            encoding=self._encoding.name,
            encoding_errors=self._encoding.errors,
        )
        if self._encoding.note:
            self.facts.note(self._encoding.note)

    def batches(self) -> Iterator[Batch]:
        size_bytes = self._path.stat().st_size
        only_head = not pieces.can_start_anywhere(self._encoding)
        self.facts.share_read = pieces.read_bytes_of(size_bytes) / max(1, size_bytes)
        if size_bytes > pieces.WHOLE_BYTES:
            self.facts.note(_sampled(size_bytes, only_head=only_head))
        columns, good, bad, first_bad = Columns(self.facts), 0, 0, ""
        for piece in pieces.pieces_of(self._path, self._encoding, only_head=only_head):
            found: list[dict[str, Any]] = []
            for number, line in enumerate(piece.lines, 1):
                if not line.strip():
                    continue
                one = _object(line)
                if one is None:
                    bad += 1
                    where = f"line {number:,}" if piece.is_first else "a line"
                    first_bad = first_bad or f"{where}: {shown_cell(line.strip())}"
                    if not good and bad >= 100:
                        raise TableError(f"no line of the first 100 is a JSON object: {first_bad}")
                    continue
                good += 1
                found.append(one)
                if len(found) == _BATCH_OBJECTS:
                    yield columns.batch(found, piece.end_bytes)
                    found = []
            if found:
                yield columns.batch(found, piece.end_bytes)
        if bad and not good:
            raise TableError(f"no line is a JSON object: {first_bad}")
        if bad:
            self.facts.note(f"{bad:,} lines are no JSON objects, the first one {first_bad}")


class JsonTable:
    """An array of objects, or an object of which one value is such an array."""

    is_typed = True

    def __init__(self, path: Path, *, encoding: str | None = None):
        size_bytes = path.stat().st_size
        if size_bytes > MOST_JSON_BYTES:
            raise TableError(
                f"a JSON array of more than {MOST_JSON_BYTES >> 20} MiB: save it as JSON lines, "
                "one object in each line, of which parts can be read"
            )
        _, found = text_head(path, encoding)
        self.facts = Facts(format="JSON", encoding=found.name, encoding_errors=found.errors)
        if found.note:
            self.facts.note(found.note)
        try:
            value = json.loads(path.read_bytes().decode(found.name, found.errors))
        except RecursionError:
            raise TableError("its JSON is nested too deeply") from None
        except ValueError as error:
            raise TableError(f"it is no JSON: {error}") from None
        self._rows = self._found(value)
        self._size_bytes = size_bytes

    def batches(self) -> Iterator[Batch]:
        columns, others = Columns(self.facts), 0
        for at in range(0, len(self._rows), _BATCH_OBJECTS):
            part = self._rows[at : at + _BATCH_OBJECTS]
            objects = [one for one in part if isinstance(one, dict)]
            others += len(part) - len(objects)
            share = min(1.0, (at + len(part)) / len(self._rows))
            yield columns.batch(objects, int(self._size_bytes * share))
        if others:
            self.facts.note(f"{others:,} members of the array are no objects, and not counted")

    def _found(self, value: Any) -> list[Any]:
        if _is_table(value):
            return value
        if isinstance(value, dict):
            tables = {key: one for key, one in value.items() if _is_table(one)}
            if len(tables) == 1:
                ((key, rows),) = tables.items()
                self.facts.rows_key = key
                self.facts.note(f"the rows are the value of {shown_cell(key)!r}")
                return rows
            if len(tables) > 1:
                names = ", ".join(map(shown_cell, list(tables)[:10]))
                raise TableError(f"it has several tables ({names}): save one by itself")
        raise TableError("its JSON is no array of objects")


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(one, dict) for one in value[:1000])


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
