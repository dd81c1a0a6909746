"""What does a router keep between starts? Its epoch, and which pools are drained.

Consumers take the topology with the higher (epoch, counter), so each start must
have a higher epoch than all earlier ones. An operator's drain applies to one
process of a pool, also when the router restarts.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

MAX_EPOCH = 2**63 - 1


def next_epoch(state: Path | None, clock_ms: Callable[[], int]) -> tuple[int, bool]:
    """(epoch, whether an earlier start is known); the epoch is in the file on return.

    Without a file the epoch is the wall clock in milliseconds, which is higher than that
    of an earlier start even if its file was lost. Raises ValueError when the file cannot
    be read, holds something else, or cannot be written.
    """
    previous = _read(state) if state is not None else None
    epoch = clock_ms() if previous is None else previous + 1
    if state is not None:
        _write(state, b"%d\n" % epoch)
    return epoch, previous is not None


class Drains:
    """Pools an operator has drained, by (pool id, incarnation); in a file beside the epoch's."""

    def __init__(self, state: Path | None):
        """Raises ValueError when the file cannot be read or holds something else."""
        self._path = state.with_name(state.name + ".drained") if state is not None else None
        self._incarnations: dict[str, int] = {}
        for line in _lines(self._path):
            pool_id, _, incarnation = line.partition(" ")
            if not pool_id or not incarnation.isdigit():
                raise ValueError(f"--state: {self._path} does not hold drained pools")
            self._incarnations[pool_id] = int(incarnation)

    def holds(self, pool_id: str, incarnation: int) -> bool:
        """Whether this process is drained; a newer one of the same id is not."""
        return self._incarnations.get(pool_id) == incarnation

    def followed(self, pool_id: str, incarnation: int) -> None:
        """A process of this id is at work: end the drain of an older one."""
        known = self._incarnations.get(pool_id)
        if known is not None and known < incarnation:
            self.set(pool_id, incarnation, drained=False)

    def set(self, pool_id: str, incarnation: int, *, drained: bool) -> None:
        """Note it, on disk too. A failed write is logged: the drain itself goes on."""
        if drained:
            self._incarnations[pool_id] = incarnation
        elif self._incarnations.pop(pool_id, None) is None:
            return
        if self._path is None:
            return
        lines = [f"{name} {number}\n" for name, number in sorted(self._incarnations.items())]
        try:
            _write(self._path, "".join(lines).encode())
        except ValueError as error:
            log.error(
                "after a restart the router will not know that %s is drained: %s", pool_id, error
            )


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        return path.read_text("ascii").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--state: cannot read {path}: {error}") from None


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


def _write(path: Path, content: bytes) -> None:
    """Atomically: after a crash the file holds the old content or the new one."""
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as file:
            file.write(content)
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
