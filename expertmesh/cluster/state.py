"""Where is the state of a running cluster, so that `status` and `down` find it?

A run folder holds the services' logs, `cluster.json` (what runs: pids with their start times,
addresses, phase), `secret`, which callers of the services must know, and `lock`, held by the
supervisor while it runs. A state file whose supervisor no longer runs is stale: it is reported
as such, and the next `up` replaces it.

Without --run-dir there is one folder for each user and API port, so that clusters on other ports
and of other users do not disturb each other. `down` kills processes by what a run folder says, so
the folder must be safe: owned by this user, not a symbolic link, not writable by others.
"""

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import psutil

from expertmesh.console import EXIT_USAGE, CommandError
from expertmesh.state_root import state_root
from rpc.access.secret import write_secret

RUN_DIR_HELP = (
    "Folder for logs and state, one for each cluster. Default: one for each API port in "
    "$XDG_STATE_HOME/expertmesh or ~/.local/state/expertmesh."
)
FIND_HELP = "Run folder of the cluster. Default: that of the running one."
DEFAULT_PORT = 8000
DEFAULT_URL = f"http://127.0.0.1:{DEFAULT_PORT}"
_ANY_PORT = 64
"""Most clusters of one user at once with --http-port 0 and no --run-dir."""
_START_TIME_SLACK_S = 5.0
"""Start times are counted from the kernel's boot time, which moves when the clock is adjusted."""


def default_run_dir(http_port: int) -> Path:
    """The folder of a cluster with this port; for port 0 the first one not in use."""
    root = state_root()
    if http_port:
        return root / f"cluster-{http_port}"
    for number in range(1, _ANY_PORT):
        folder = RunDir(root / f"cluster-any-{number}")
        if not folder.is_held():
            return folder.path
    raise CommandError(f"too many clusters run from {root} ({_ANY_PORT}): give a --run-dir")


def find_run_dir(given: Path | None) -> "RunDir":
    """The given folder, else that of this user's running cluster, else the one last used.

    Raises CommandError (usage) if several are running.
    """
    if given is not None:
        return RunDir(given.absolute())
    known = [(folder, folder.read()) for folder in _run_dirs()]
    running = [
        (folder, state) for folder, state in known if state and folder.supervisor_alive(state)
    ]
    if len(running) > 1:
        told = ", ".join(f"{folder.path} ({state.get('url')})" for folder, state in running)
        raise CommandError(f"several clusters are running: give --run-dir: {told}", EXIT_USAGE)
    if running:
        return running[0][0]
    left = [folder for folder, state in known if state]
    return max(left, key=RunDir.written_at, default=RunDir(default_run_dir(DEFAULT_PORT)))


def running_url(run_dir: Path | None) -> str | None:
    """The API's URL of the cluster that `find_run_dir` finds; None if it is not running."""
    folder = find_run_dir(run_dir)
    state = folder.read()
    if state is not None and state.get("url") and folder.supervisor_alive(state):
        return str(state["url"])
    return None


def _run_dirs() -> Iterator["RunDir"]:
    root = state_root()
    if root.exists():
        _check_ours(root)
        yield from (RunDir(path) for path in sorted(root.glob("cluster-*")))


def _check_ours(path: Path) -> None:
    """Raises CommandError unless only this user can write to the folder."""
    found = path.lstat()
    owner, user, mode = found.st_uid, os.geteuid(), found.st_mode
    for is_unsafe, reason in (
        (stat.S_ISLNK(mode), "a symbolic link"),
        (not stat.S_ISDIR(mode), "not a folder"),
        (owner != user, f"owned by user {owner}, not by {user} who runs this"),
        (mode & 0o022, f"writable by others (mode {mode & 0o777:o}; chmod 700 it)"),
    ):
        if is_unsafe:
            raise CommandError(f"run folder {path}: it is {reason}")


def is_alive(pid: int | None, started_at: float | None) -> bool:
    """Whether the process with this pid and start time still runs; a reused pid does not count."""
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
        """Make the folder, readable by its owner only. Raises CommandError if it is not safe."""
        root = state_root()
        try:
            for folder in (root, self.path) if self.path.parent == root else (self.path,):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                if folder == root and root.stat().st_uid == os.geteuid():
                    root.chmod(0o700)  # it may have been made with another umask
                _check_ours(folder)
        except OSError as error:
            raise CommandError(f"--run-dir {self.path}: {error.strerror}") from None

    def is_held(self) -> bool:
        """Whether a supervisor has locked the folder."""
        try:
            with open(self.path / "lock") as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def written_at(self) -> float:
        """Unix time of the last write of its state; 0 without state."""
        try:
            return self._state_path.stat().st_mtime
        except OSError:
            return 0.0

    def lock(self) -> IO[str]:
        """Lock the folder for this process. Raises CommandError if another supervisor has it."""
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
                f"a cluster already runs from {self.path} (pid {state.get('pid', '?')}, "
                f"{state.get('url') or 'still starting'}); stop it with `expertmesh down`, or give "
                "this one another --http-port (make run PORT=8501) or --run-dir"
            ) from None
        return handle

    @property
    def secret_path(self) -> Path:
        return self.path / "secret"

    def renew_secret(self) -> None:
        """Write a new secret; the caller holds the lock. Raises CommandError."""
        try:
            write_secret(self.secret_path)
        except OSError as error:
            raise CommandError(f"--run-dir {self.path}: {error.strerror}") from None

    def log_path(self, name: str) -> Path:
        return self.path / f"{name}.log"

    def write(self, state: dict[str, Any]) -> None:
        """Replace the state file atomically: readers see the old or the new one."""
        scratch = self._state_path.with_suffix(".tmp")
        scratch.write_text(json.dumps(state, indent=2))
        os.replace(scratch, self._state_path)

    def read(self) -> dict[str, Any] | None:
        """The state; None if there is none that can be read.

        Raises CommandError if others can write to the folder.
        """
        try:
            _check_ours(self.path)
            state = json.loads(self._state_path.read_text())
        except (OSError, ValueError):
            return None
        return state if isinstance(state, dict) else None

    def supervisor_alive(self, state: dict[str, Any]) -> bool:
        return is_alive(state.get("pid"), state.get("started_at"))

    def remove_state(self) -> None:
        self._state_path.unlink(missing_ok=True)
