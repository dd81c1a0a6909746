"""What must a database offer to hold the store's tables? SQLite and PostgreSQL do."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Transaction(Protocol):
    """Statements that take effect together."""

    def __call__(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows. `statement` has a `?` for each value."""


class Database(Protocol):
    """One connection, used by one thread. All methods raise StoreError."""

    serial: str
    """Type of a column that numbers the rows."""
    table_exists: str
    """A query with a table's name that gives a row if it is there."""

    def open(self) -> None:
        """Connect. Raises ValueError for what an operator must mend."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Committed at the end, undone by an exception."""

    def lock_schema(self, run: Transaction) -> None:
        """Let no other gateway change the tables until the transaction ends."""

    def used_bytes(self) -> int:
        """What its content takes."""

    def compact(self) -> None:
        """Give back room that deleted rows have left, and what they held."""

    def close(self) -> None:
        """Disconnect; whatever has happened before, it raises nothing."""


_FIRST = (
    "CREATE TABLE stored_version (version BIGINT NOT NULL)",
    # A thread's size counts what its entries and items hold; used_s is 0 once it must go.
    """CREATE TABLE stored_threads (
        id TEXT PRIMARY KEY, tenant TEXT NOT NULL, used_s DOUBLE PRECISION NOT NULL,
        size_bytes BIGINT NOT NULL)""",
    "CREATE INDEX stored_threads_used ON stored_threads (used_s)",
    "CREATE INDEX stored_threads_tenant ON stored_threads (tenant, used_s)",
    # The large columns come last: what stands before them is read without them.
    """CREATE TABLE stored_entries (
        seq {serial}, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, kind TEXT NOT NULL,
        thread TEXT NOT NULL, parent TEXT, conversation TEXT, created_s DOUBLE PRECISION NOT NULL,
        running_until_s DOUBLE PRECISION, size_bytes BIGINT NOT NULL,
        document BYTEA NOT NULL, input BYTEA NOT NULL, output BYTEA NOT NULL)""",
    "CREATE INDEX stored_entries_thread ON stored_entries (thread)",
    """CREATE TABLE stored_items (
        seq {serial}, conversation TEXT NOT NULL, id TEXT NOT NULL, size_bytes BIGINT NOT NULL,
        body BYTEA NOT NULL, UNIQUE (conversation, id))""",
    "INSERT INTO stored_version VALUES (1)",
)
_FINDS_ITEMS = (
    # Which answer's output has an item.
    """CREATE TABLE stored_answered (
        id TEXT NOT NULL, entry TEXT NOT NULL REFERENCES stored_entries (id) ON DELETE CASCADE,
        PRIMARY KEY (id, entry))""",
    "CREATE INDEX stored_answered_entry ON stored_answered (entry)",
    "CREATE INDEX stored_items_id ON stored_items (id)",
)
_STEPS = (_FIRST, _FINDS_ITEMS)
VERSION = len(_STEPS)
"""Of the tables: how many of the steps have been taken."""


def prepare_tables(database: Database, where: str) -> None:
    """Make the tables, or what they lack of this version.

    Raises ValueError naming `where` if a newer version made them, and StoreError.
    """
    with database.transaction() as run:
        database.lock_schema(run)
        version = 0
        if run(database.table_exists, "stored_version"):
            found: Sequence[tuple[Any, ...]] = run("SELECT version FROM stored_version")
            version = found[0][0] if found else 0
            if not 0 < version <= VERSION:
                raise ValueError(
                    f"{where}: its tables are of version {version}, this gateway knows version "
                    f"{VERSION}: use a store of its own, or a newer gateway"
                )
        for step in _STEPS[version:]:
            for statement in step:
                run(statement.format(serial=database.serial))
        run("UPDATE stored_version SET version = ?", VERSION)
