"""When does what was committed move from SQLite's log into its file? Soon, and beside the answers.

By itself SQLite does it at the end of a commit, once in about a hundred answers, and that answer's
end then waits for two syncs of the disk. Here a thread with a connection of its own does it a
moment after there is something to move; readers and the writer go on meanwhile. A loss of power
costs what was committed since.
"""

import contextlib
import sqlite3
import threading
from pathlib import Path

PACE_S = 1.0
"""Between a commit and the move, which takes along all that was committed meanwhile."""


class Checkpoints:
    """For the writer of one file. `start`, `note` each commit, `stop`."""

    def __init__(self, path: Path):
        self._path = path
        self._changed = threading.Condition()
        self._is_noted = False
        self._is_stopped = False
        self._thread = threading.Thread(
            target=self._run, name="response-store-checkpoints", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def note(self) -> None:
        """Something was committed."""
        with self._changed:
            self._is_noted = True
            self._changed.notify()

    def stop(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        while self._is_due():
            # Whatever keeps it from this, the writer does it itself once its log is long.
            with contextlib.suppress(sqlite3.Error):
                connection = connection or sqlite3.connect(self._path, isolation_level=None)
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        if connection is not None:
            connection.close()

    def _is_due(self) -> bool:
        """Waits until there is something to move, and a moment longer; False: it is stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_noted or self._is_stopped)
            self._changed.wait_for(lambda: self._is_stopped, PACE_S)
            self._is_noted = False
            return not self._is_stopped
