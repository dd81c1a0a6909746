"""Which epoch does this start of the router have?

Consumers take the topology with the higher (epoch, counter), so each start must
have a higher epoch than every start before it.
"""

import os
from collections.abc import Callable
from pathlib import Path

MAX_EPOCH = 2**63 - 1


def next_epoch(state: Path | None, clock_ms: Callable[[], int]) -> tuple[int, bool]:
    """(epoch, whether an earlier start is known); the epoch is in the file on return.

    Without a file the epoch is the wall clock in milliseconds: a router that lost
    its file, or never had one, still comes after its former self. Raises ValueError
    when the file cannot be read, is not ours, or cannot be written.
    """
    previous = _read(state) if state is not None else None
    epoch = clock_ms() if previous is None else previous + 1
    if state is not None:
        _write(state, epoch)
    return epoch, previous is not None


def _read(path: Path) -> int | None:
    try:
        with path.open("rb") as file:
            text = file.read(64).strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"--state: cannot read {path}: {error.strerror}") from None
    if not text.isdigit() or not 0 < int(text) < MAX_EPOCH:
        raise ValueError(f"--state: {path} does not hold an epoch (one positive number)")
    return int(text)


def _write(path: Path, epoch: int) -> None:
    """Atomically: after a crash the file holds the old epoch or the new one."""
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as file:
            file.write(b"%d\n" % epoch)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ValueError(f"--state: cannot write {path}: {error.strerror}") from None
