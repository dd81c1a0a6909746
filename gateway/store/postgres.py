"""How do several gateways share one PostgreSQL database?

The driver is loaded only where it is used: `pip install 'expertmesh[postgres]'`.
"""

import contextlib
import functools
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gateway.store.database import Transaction
from gateway.store.response_store import StoreError

if TYPE_CHECKING:
    import psycopg

log = logging.getLogger(__name__)

_CONNECT_S = 5
_STATEMENT_MS = 8000
_SILENT_MS = 8000
"""How long the server may leave what was sent to it unacknowledged."""
_RETRY_S = 2.0
"""After a failed attempt to connect, requests fail at once for so long."""
_SCHEMA_LOCK = 0x65786D73
_DISK_FULL, _CANCELLED, _DEADLOCK = "53100", "57014", "40P01"


class PostgresDatabase:
    """The `Database` on a server. A lost connection is made again by the next transaction."""

    serial = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
    table_exists = "SELECT 1 WHERE to_regclass(?) IS NOT NULL"

    def __init__(self, url: str):
        """Raises ValueError where the driver is missing or the URL unreadable."""
        try:
            import psycopg
            from psycopg.conninfo import conninfo_to_dict
        except ImportError as error:
            raise ValueError(
                f"--response-store postgres: its driver is missing ({error}): "
                "pip install 'expertmesh[postgres]'"
            ) from None
        try:
            conninfo_to_dict(url)
        except psycopg.Error:  # its message would quote the URL, which has a password
            raise ValueError("--response-store postgres: the URL cannot be read") from None
        self._driver = psycopg
        self._url = url
        self._open: psycopg.Connection[Any] | None = None
        self._retry_at_s = 0.0

    def open(self) -> None:
        self._connection()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Transaction]:
        connection = self._connection()
        with self._told(), connection.transaction():

            def run(statement: str, *values: Any) -> list[tuple[Any, ...]]:
                # Binary, because bytes as text are twice as long.
                cursor = connection.execute(_statement(statement), values, binary=True)
                return cursor.fetchall() if cursor.description else []

            yield run

    def lock_schema(self, run: Transaction) -> None:
        run("SELECT pg_advisory_xact_lock(?)", _SCHEMA_LOCK)

    def used_bytes(self) -> int:
        with self.transaction() as run:
            rows = run("SELECT CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) FROM stored_threads")
            return int(rows[0][0])

    def compact(self) -> None:
        """The server does it by itself (autovacuum)."""

    def close(self) -> None:
        if self._open is not None:
            with contextlib.suppress(self._driver.Error):
                self._open.close()
            self._open = None

    def _connection(self) -> "psycopg.Connection[Any]":
        if self._open is not None and not self._open.closed:
            return self._open
        if time.monotonic() < self._retry_at_s:
            raise StoreError("unavailable", "the PostgreSQL server was not reached a moment ago")
        try:
            with self._told():
                connection = self._driver.connect(
                    self._url,
                    autocommit=True,
                    connect_timeout=_CONNECT_S,
                    tcp_user_timeout=_SILENT_MS,
                    application_name="expertmesh gateway",
                )
                connection.execute(f"SET statement_timeout = {_STATEMENT_MS}")
        except StoreError:
            self._retry_at_s = time.monotonic() + _RETRY_S
            raise
        self._open = connection
        return connection

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """The driver's errors as the store's. After any of them the connection is made anew."""
        try:
            yield
        except self._driver.Error as error:
            self.close()
            state = error.sqlstate
            reason = "full" if state == _DISK_FULL else "unavailable"
            reason = "busy" if state in (_CANCELLED, _DEADLOCK) else reason
            message = str(error).partition("\n")[0]
            raise StoreError(reason, f"PostgreSQL: {message}") from error


@functools.cache
def _statement(text: str) -> bytes:
    """In the driver's form; ours have neither % nor a ? that is no value."""
    return text.replace("?", "%s").encode()
