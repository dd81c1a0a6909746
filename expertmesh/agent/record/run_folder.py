"""Where does a run keep its trace, its outputs and what it can put back? Only its owner can read.

One folder for each run, in `runs/` of the agent's state folder: `trace.jsonl`, `outputs/` (what
tools printed, in full), `checkpoint/` (files as they were) and `changes.diff`.
"""

import os
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from expertmesh.state_root import state_root

KEPT_RUNS = 50
KEPT_BYTES = 4 << 30
"""Of all checkpoints together; the oldest runs go first."""


def agent_state() -> Path:
    """This user's folder for all that the agent keeps; made if it is not there. Raises OSError."""
    path = state_root() / "agent"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def runs_of(state: Path) -> Path:
    """The folder of all runs."""
    return state / "runs"


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; its name is the run's id."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def trace(self) -> Path:
        return self.path / "trace.jsonl"

    @property
    def outputs(self) -> Path:
        return self.path / "outputs"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    @property
    def diff(self) -> Path:
        return self.path / "changes.diff"


def new_run(root: Path) -> RunFolder:
    """A new folder; old runs beyond the limits are removed. Raises OSError."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    root.chmod(0o700)
    _remove_old(root)
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    run = RunFolder(root / name)
    for path in (run.path, run.outputs, run.checkpoint):
        path.mkdir(mode=0o700)
    return run


def find_run(root: Path, run_id: str | None = None) -> RunFolder:
    """The run of this id, or of an id that begins so, or the latest. Raises ValueError."""
    runs = all_runs(root)
    if not runs:
        raise ValueError(f"no run is kept in {root}")
    if run_id is None:
        return runs[-1]
    fitting = [one for one in runs if one.id.startswith(run_id)] if run_id else []
    exact = [one for one in fitting if one.id == run_id]
    if len(exact or fitting) != 1:
        what = "no run" if not fitting else f"{len(fitting)} runs"
        latest = ", ".join(one.id for one in runs[-3:])
        raise ValueError(f"run {run_id!r}: {what} of this id; the latest are {latest}")
    return (exact or fitting)[0]


def all_runs(root: Path) -> list[RunFolder]:
    """By age, the latest last."""
    if not root.is_dir():
        return []
    return [RunFolder(path) for path in sorted(root.iterdir()) if (path / "trace.jsonl").is_file()]


def private_file(path: Path, flags: int = os.O_CREAT | os.O_EXCL) -> int:
    """A handle for writing to a file that only its owner can read. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)


def write_private(path: Path, data: bytes) -> None:
    """Replaces a file; a reader sees the old one or the new one, never a part."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(private_file(new), "wb") as file:
        file.write(data)
    new.replace(path)


def _remove_old(root: Path) -> None:
    runs = all_runs(root)
    size_bytes = 0
    for age, run in enumerate(reversed(runs), 1):
        size_bytes += sum(one.stat().st_size for one in run.checkpoint.rglob("*") if one.is_file())
        if age >= KEPT_RUNS or (age > 1 and size_bytes > KEPT_BYTES):
            shutil.rmtree(run.path, ignore_errors=True)
