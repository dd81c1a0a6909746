"""How large is a folder that a hostile program is changing meanwhile?

It may be deeper than any path, closed to its owner, or turn into a link while it is looked at.
"""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LONGEST_PATH = 3000
"""Beyond it the walk begins anew at the folder reached; the kernel takes 4095 bytes."""
MOST_BEGINNINGS = 100
MOST_S = 10.0


@dataclass(frozen=True)
class Size:
    """Of all that is in a folder, on disk."""

    size_bytes: int
    is_complete: bool = True
    """Whether there was time to look at everything."""
    is_too_deep: bool = False
    """Whether it is deeper than anybody needs it, and hides something there."""


class _TooDeepError(Exception):
    pass


def measure(
    folder: Path,
    *,
    before_s: float | None = None,
    most_s: float = MOST_S,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Size:
    """The size of a folder; with `before_s`, only of files that were not changed since.

    It is not complete if that takes too long, or is stopped meanwhile.
    """
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline_s = time.monotonic() + most_s
    walk = _Walk(os.readlink(f"/proc/self/fd/{top}"), before_s, deadline_s, is_stopped)
    try:
        walk.add(top, MOST_BEGINNINGS)
    except TimeoutError:
        return Size(walk.total_bytes, is_complete=False)
    except _TooDeepError:
        return Size(walk.total_bytes, is_too_deep=True)
    finally:
        os.close(top)
    return Size(walk.total_bytes)


class _Walk:
    def __init__(
        self,
        real: str,
        before_s: float | None,
        deadline_s: float,
        is_stopped: Callable[[], bool],
    ):
        self._real, self._before_s, self._deadline_s = real, before_s, deadline_s
        self._is_stopped = is_stopped
        self.total_bytes = 0

    def add(self, top: int, beginnings: int) -> None:
        """All below an open folder."""
        pending = ["."]
        while pending:
            if time.monotonic() > self._deadline_s or self._is_stopped():
                raise TimeoutError
            path = pending.pop()
            try:
                with self._opened(top, path) as (folder, was_closed):
                    if len(path) <= LONGEST_PATH and not was_closed:
                        pending += [f"{path}/{name}" for name in self._look(folder)]
                    elif beginnings:
                        self.add(folder, beginnings - 1)
                    else:
                        raise _TooDeepError
            except TimeoutError:
                raise
            except OSError:
                continue  # removed, turned into something else, or closed by another user

    def _look(self, folder: int) -> Iterator[str]:
        """Count the files in an open folder; the names of the folders in it."""
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    yield entry.name
                elif self._before_s is None or status.st_ctime < self._before_s:
                    self.total_bytes += 512 * status.st_blocks

    @contextmanager
    def _opened(self, top: int, path: str) -> Iterator[tuple[int, bool]]:
        """A folder below an open one, for reading, and whether its owner has closed it.

        A closed one is opened for as long as it is looked at.
        """
        held = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
        by_number = f"/proc/self/fd/{held}"
        mode = os.fstat(held).st_mode
        was_closed = False
        try:
            if not self._is_inside(by_number):
                raise NotADirectoryError(path)
            if not os.access(by_number, os.R_OK | os.X_OK):
                os.chmod(by_number, mode | 0o500)  # fails for another's, where nothing of ours is
                was_closed = True
            file = os.open(by_number, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                yield file, was_closed
            finally:
                os.close(file)
        finally:
            if was_closed:
                os.chmod(by_number, mode)
            os.close(held)

    def _is_inside(self, by_number: str) -> bool:
        """Not led out by a link that a folder on the way has turned into."""
        try:
            real = os.readlink(by_number)
        except OSError as error:
            return error.errno == errno.ENAMETOOLONG  # only in there is anything as deep
        return f"{real}/".startswith(f"{self._real}/")
