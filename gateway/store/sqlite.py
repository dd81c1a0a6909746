"""How is a SQLite file opened, so that it stays private, within its size, and forgets?"""

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.store.checkpoints import Checkpoints
from gateway.store.database import Transaction
from gateway.store.response_store import StoreError

_BUSY_S = 2.0
"""How long another process may hold the file."""
_JOURNAL_BYTES = 16 * 1024 * 1024
"""Of the log."""
_CACHE_KIB = 16 * 1024
_COMPACT_PAGES = 2000
_TABLE_NAMES = "SELECT name FROM sqlite_master WHERE type = 'table'"

# In WAL mode with NORMAL, a commit outlives the process, and a loss of power costs at most the
# last commits: they are not synced one by one, which would cost each answer milliseconds. A commit
# moves the log into the file only where the thread that does it otherwise does not keep up.
_PRAGMAS = (
    "auto_vacuum = INCREMENTAL",
    "journal_mode = WAL",
    "synchronous = NORMAL",
    "secure_delete = ON",
    "foreign_keys = ON",
    "temp_store = MEMORY",
    "trusted_schema = OFF",
    f"journal_size_limit = {_JOURNAL_BYTES}",
    f"cache_size = -{_CACHE_KIB}",
)


class SqliteDatabase:
    """The `Database` in one file, which several gateways of one machine may share."""

    serial = "INTEGER PRIMARY KEY AUTOINCREMENT"
    table_exists = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"

    def __init__(self, path: Path, *, max_bytes: int):
        self._path = path
        self._max_bytes = max_bytes
        self._open: sqlite3.Connection | None = None
        self._checkpoints: Checkpoints | None = None

    def open(self) -> None:
        self._make_private()
        try:
            self._open = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)
            tables = [row[0] for row in self._open.execute(_TABLE_NAMES)]
            if tables and "stored_version" not in tables:
                raise ValueError(f"--response-store {self._path}: the database of something else")
            for pragma in _PRAGMAS:
                self._open.execute(f"PRAGMA {pragma}").fetchall()
            page_bytes = self._pragma("page_size")
            for pragma, size_bytes in (
                ("max_page_count", self._max_bytes),
                ("wal_autocheckpoint", _JOURNAL_BYTES),
            ):
                self._open.execute(f"PRAGMA {pragma} = {size_bytes // page_bytes}").fetchall()
        except sqlite3.DatabaseError as error:
            self.close()
            raise ValueError(f"--response-store {self._path}: {error}") from None
        self._checkpoints = Checkpoints(self._path)
        self._checkpoints.start()

    def _make_private(self) -> None:
        """The file, for its owner only. SQLite gives its other files the same mode."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            file = os.open(self._path, flags, 0o600)
            try:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise ValueError(f"--response-store {self._path}: not a file")
                os.fchmod(file, 0o600)
            finally:
                os.close(file)
        except OSError as error:
            raise ValueError(f"--response-store {self._path}: {error.strerror}") from None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with _told():
            connection = self._connection()

            def run(statement: str, *values: Any) -> list[tuple[Any, ...]]:
                return connection.execute(statement, values).fetchall()

            connection.execute("BEGIN IMMEDIATE")
            try:
                yield run
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk may have ended it
                    connection.execute("ROLLBACK")
                raise
            if self._checkpoints is not None:
                self._checkpoints.note()

    def lock_schema(self, run: Transaction) -> None:
        """A transaction that writes has the file to itself."""

    def used_bytes(self) -> int:
        with _told():
            pages = self._pragma("page_count") - self._pragma("freelist_count")
            return pages * self._pragma("page_size")

    def compact(self) -> None:
        """The file shrinks, and what was deleted is overwritten in it and no longer in its log."""
        with _told():
            # `execute` would free a single page: it takes one step of what gives no rows.
            self._connection().executescript(f"PRAGMA incremental_vacuum({_COMPACT_PAGES})")
            self._connection().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.stop()
            self._checkpoints = None
        if self._open is not None:
            with contextlib.suppress(sqlite3.Error):
                self._open.close()
            self._open = None

    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            raise StoreError("unavailable", "the store is closed")
        return self._open

    def _pragma(self, name: str) -> int:
        value: int = self._connection().execute(f"PRAGMA {name}").fetchone()[0]
        return value


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """SQLite's errors as the store's."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without what kind of it
        reasons = {sqlite3.SQLITE_FULL: "full", sqlite3.SQLITE_BUSY: "busy"}
        raise StoreError(reasons.get(code, "unavailable"), str(error)) from error
