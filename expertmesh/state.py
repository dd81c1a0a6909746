"""Where does a running cluster leave its traces, so that `status` and `down` find it?

A run folder holds the services' logs, `cluster.json` (what runs: pids with their
start times, addresses, phase) and `lock`, held by the supervisor as long as it
lives. A state file whose supervisor no longer lives is stale: it is reported as
such and the next `up` replaces it.
"""

import fcntl
import json
import os
from pathlib import Path
from typing import IO, Any

import psutil

from expertmesh.console import CommandError

RUN_DIR_HELP = (
    "Folder for logs and state; one cluster each. Default: $XDG_STATE_HOME/expertmesh/cluster."
)
_START_TIME_SLACK_S = 5.0
"""The kernel's boot time, which start times are counted from, moves with clock adjustments."""


def default_run_dir() -> Path:
    """`$XDG_STATE_HOME/expertmesh/cluster`, by default below `~/.local/state`."""
    base = os.environ.get("XDG_STATE_HOME", "")
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state"
    return root / "expertmesh" / "cluster"


def is_alive(pid: int | None, started_at: float | None) -> bool:
    """Whether the process named by pid and start time still runs (a reused pid does not count)."""
    if pid is None or started_at is None:
        return False
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(process.create_time() - started_at) < _START_TIME_SLACK_S
    except psutil.NoSuchProcess:
        return False


class RunDir:
    """The folder of one cluster."""

    def __init__(self, path: Path):
        self.path = path
        self._state_path = path / "cluster.json"

    def create(self) -> None:
        """Make the folder, readable by its owner only. Raises CommandError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise CommandError(f"--run-dir {self.path}: {error.strerror}") from None

    def lock(self) -> IO[str]:
        """Hold the folder for this process. Raises CommandError when another supervisor does."""
        self.create()
        try:
            handle = open(self.path / "lock", "w")  # noqa: SIM115 (held until the process ends)
        except OSError as error:
            raise CommandError(f"--run-dir {self.path}: {error.strerror}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.close()
            state = self.read() or {}
            raise CommandError(
                f"a cluster already runs from {self.path} "
                f"(pid {state.get('pid', '?')}, {state.get('url') or 'still starting'}); stop it with "
                "`expertmesh down`, or give this one its own --run-dir and --http-port"
            ) from None
        return handle

    def log_path(self, name: str) -> Path:
        return self.path / f"{name}.log"

    def write(self, state: dict[str, Any]) -> None:
        """Replace the state file in one step: readers see the old or the new one."""
        scratch = self._state_path.with_suffix(".tmp")
        scratch.write_text(json.dumps(state, indent=2))
        os.replace(scratch, self._state_path)

    def read(self) -> dict[str, Any] | None:
        """The state, or None when there is none that can be read."""
        try:
            state = json.loads(self._state_path.read_text())
        except (OSError, ValueError):
            return None
        return state if isinstance(state, dict) else None

    def supervisor_alive(self, state: dict[str, Any]) -> bool:
        return is_alive(state.get("pid"), state.get("started_at"))

    def remove_state(self) -> None:
        self._state_path.unlink(missing_ok=True)
