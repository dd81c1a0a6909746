"""Where in a folder's texts are these words? An index in SQLite that follows the files.

Two tables of FTS5: one of words (with East Asian text in pairs, terms.py), one of trigrams, which
finds parts of words too. Each ranks by bm25, and the ranks are added up as 1 / (60 + rank)
(reciprocal rank fusion, Cormack and others, 2009).
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from expertmesh.agent.retrieval.documents import Document, documents, is_html, read_document
from expertmesh.agent.retrieval.passages import passages
from expertmesh.agent.retrieval.terms import in_pairs, substring_query, word_query

MAX_TEXT_BYTES = 64 << 20
"""Of all documents together; the index takes about five times that on disk."""
_VERSION = 1
_CANDIDATES = 50
_RANK_OFFSET = 60
_WAIT_S = 30.0
_FILES_PER_COMMIT = 200
_STEPS_PER_LOOK = 10_000
_SCHEMA = """
CREATE TABLE files (id INTEGER PRIMARY KEY, path TEXT UNIQUE, size INTEGER, changed INTEGER,
                    text_bytes INTEGER);
CREATE TABLE passages (id INTEGER PRIMARY KEY, file INTEGER, first INTEGER, last INTEGER,
                       body TEXT);
CREATE INDEX of_file ON passages (file);
CREATE VIRTUAL TABLE words USING fts5(body, tokenize = 'unicode61 remove_diacritics 2');
CREATE VIRTUAL TABLE trigrams USING fts5(body, tokenize = 'trigram');
"""


class UnusableIndexError(Exception):
    """An index that cannot be used; the text says why."""


@dataclass(frozen=True)
class Found:
    """A passage that has some of the words."""

    path: str
    first_line: int
    last_line: int
    """Both 0 where lines mean nothing: in HTML."""
    text: str

    @property
    def place(self) -> str:
        return f"{self.path}:{self.first_line}-{self.last_line}" if self.first_line else self.path


@dataclass(frozen=True)
class Update:
    """What an index holds."""

    num_files: int
    left_out: int
    """Files that are no text, too large, or beyond MAX_TEXT_BYTES."""


class TextIndex:
    """The index of one folder, in one file that only its owner can read. Not thread-safe."""

    def __init__(self, root: Path, database: Path):
        self._root = root
        self._database = database
        self._stopped = False

    def stop(self) -> None:
        """Makes what runs in another thread end soon, with UnusableIndexError."""
        self._stopped = True

    def update(self) -> Update:
        """Read what is new or changed, and forget what is gone.

        Raises UnusableIndexError, OSError.
        """
        with self._connected() as connection:
            known = {
                path: (number, size, changed, text_bytes or 0)
                for number, path, size, changed, text_bytes in connection.execute(
                    "SELECT id, path, size, changed, text_bytes FROM files"
                )
            }
            held_bytes = sum(one[-1] for one in known.values())
            changes = 0
            for document in documents(self._root):
                self._check_stopped()
                number, size, changed, text_bytes = known.pop(
                    _storable(document.path), (None, 0, 0, 0)
                )
                if number is not None and (size, changed) == (
                    document.size_bytes,
                    document.changed_ns,
                ):
                    continue
                _forget(connection, number)
                held_bytes -= text_bytes
                held_bytes += self._add(connection, document, MAX_TEXT_BYTES - held_bytes)
                changes += 1
                if changes % _FILES_PER_COMMIT == 0:  # so that a next try goes on from here
                    connection.commit()
            for number, *_ in known.values():
                _forget(connection, number)
            connection.commit()
            held, left_out = connection.execute(
                "SELECT count(text_bytes), count(*) - count(text_bytes) FROM files"
            ).fetchone()
            return Update(held, left_out)

    def search(self, query: str, limit: int) -> list[Found]:
        """The best passages. Raises UnusableIndexError."""
        with self._connected() as connection:
            scores: dict[int, float] = {}
            for table, match in (
                ("words", word_query(query)),
                ("trigrams", substring_query(query)),
            ):
                for rank, number in enumerate(_ranked(connection, table, match)):
                    scores[number] = scores.get(number, 0.0) + 1 / (_RANK_OFFSET + rank)
            best = sorted(scores, key=lambda number: (-scores[number], number))[:limit]
            return [_found(connection, number) for number in best]

    def _add(self, connection: sqlite3.Connection, document: Document, room_bytes: int) -> int:
        """The bytes of its text. A file that is left out is kept in mind, with NULL bytes."""
        text = read_document(self._root, document)
        size_bytes = len(text.encode("utf-8", "replace")) if text is not None else 0
        if size_bytes > room_bytes:
            text, size_bytes = None, 0
        number = connection.execute(
            "INSERT INTO files (path, size, changed, text_bytes) VALUES (?, ?, ?, ?)",
            (
                _storable(document.path),
                document.size_bytes,
                document.changed_ns,
                None if text is None else size_bytes,
            ),
        ).lastrowid
        for one in passages(text or ""):
            lines = (0, 0) if is_html(document.path) else (one.first_line, one.last_line)
            row = connection.execute(
                "INSERT INTO passages (file, first, last, body) VALUES (?, ?, ?, ?)",
                (number, *lines, one.text),
            ).lastrowid
            # A file's path is part of what its passages are found by.
            body = f"{_storable(document.path)}\n{one.text}"
            connection.execute(
                "INSERT INTO words (rowid, body) VALUES (?, ?)", (row, in_pairs(body))
            )
            connection.execute("INSERT INTO trigrams (rowid, body) VALUES (?, ?)", (row, body))
        return size_bytes

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(self._open()) as connection:
                connection.set_progress_handler(lambda: self._stopped, _STEPS_PER_LOOK)
                yield connection
        except sqlite3.Error as error:
            raise UnusableIndexError(
                f"the index {self._database} cannot be used: {error}"
            ) from None

    def _open(self) -> sqlite3.Connection:
        """With the schema of this version; an older or a broken file is made anew."""
        for attempt in range(2):
            _make_private(self._database)
            connection = sqlite3.connect(self._database, timeout=_WAIT_S)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version == 0:
                    connection.executescript(f"{_SCHEMA} PRAGMA user_version = {_VERSION};")
                if version in (0, _VERSION):
                    return connection
            except sqlite3.OperationalError:
                connection.close()
                raise
            except sqlite3.DatabaseError:
                if attempt:
                    raise
            connection.close()
            for ending in ("", "-wal", "-shm"):
                self._database.with_name(self._database.name + ending).unlink(missing_ok=True)
        raise AssertionError("a new file has this version")

    def _check_stopped(self) -> None:
        if self._stopped:
            raise UnusableIndexError("stopped")


def _make_private(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def _forget(connection: sqlite3.Connection, number: int | None) -> None:
    rows = connection.execute("SELECT id FROM passages WHERE file = ?", (number,)).fetchall()
    for table in ("words", "trigrams"):
        connection.executemany(f"DELETE FROM {table} WHERE rowid = ?", rows)
    connection.execute("DELETE FROM passages WHERE file = ?", (number,))
    connection.execute("DELETE FROM files WHERE id = ?", (number,))


def _ranked(connection: sqlite3.Connection, table: str, match: str) -> list[int]:
    if not match:
        return []
    found = connection.execute(
        f"SELECT rowid FROM {table} WHERE {table} MATCH ? ORDER BY bm25({table}), rowid LIMIT ?",
        (match, _CANDIDATES),
    )
    return [row[0] for row in found]


def _found(connection: sqlite3.Connection, number: int) -> Found:
    return Found(
        *connection.execute(
            "SELECT path, first, last, body FROM passages JOIN files ON files.id = passages.file "
            "WHERE passages.id = ?",
            (number,),
        ).fetchone()
    )


def _storable(path: str) -> str:
    """File names may be no UTF-8."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
