"""By how much has a folder grown since a command was started?"""

import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path

from expertmesh.agent.sandbox.process.folder_size import Size, measure

PAUSE_S = 0.25
PAUSE_PER_LOOK = 10.0
"""After a look that took a second, none for ten: large folders must not cost a core."""


class Growth:
    """Watches one folder from the start of a command on; asked often, looks seldom.

    The first look tells what was there before, by the times of changes, so that a command need
    not wait for it to start.
    """

    def __init__(self, folder: Path, limit_bytes: int):
        self._folder, self._limit_bytes = folder, limit_bytes
        self._started_s = time.time()
        self._free_at_start_bytes = self._free_bytes = _free_bytes(folder)
        self._before: Size | None = None
        self._next_look_s = 0.0
        self._is_stopped = False

    def stop(self) -> None:
        """Come back from a look that another thread takes; what it finds is of no use."""
        self._is_stopped = True

    def is_over(self, processes: Iterable[int]) -> bool:
        """Whether it has grown by more than the limit, with what `processes` hold unlinked.

        A folder that is removed when its command has ended has not.
        """
        try:
            return self._is_over(processes)
        except FileNotFoundError:
            return False

    def _is_over(self, processes: Iterable[int]) -> bool:
        now_s, free_bytes = time.monotonic(), _free_bytes(self._folder)
        fills_up = self._free_bytes - free_bytes > self._limit_bytes // 4
        if now_s < self._next_look_s and not fills_up:
            return False
        self._free_bytes = free_bytes
        if self._before is None:
            self._before = self._measure(before_s=self._started_s)
        now = self._measure()
        took_s = time.monotonic() - now_s
        self._next_look_s = time.monotonic() + max(PAUSE_S, PAUSE_PER_LOOK * took_s)
        if now.is_too_deep:
            return True
        if self._before.is_complete and now.is_complete:
            grown_bytes = now.size_bytes - self._before.size_bytes
        else:  # too large to be looked at in time: what the disk says, which is everybody's
            grown_bytes = self._free_at_start_bytes - free_bytes
        return grown_bytes + unlinked_bytes(processes, self._folder) > self._limit_bytes

    def _measure(self, before_s: float | None = None) -> Size:
        return measure(self._folder, before_s=before_s, is_stopped=lambda: self._is_stopped)


def unlinked_bytes(processes: Iterable[int], folder: Path) -> int:
    """The size of files on the folder's disk that have no name any more and are held open."""
    disk, found = folder.stat().st_dev, {}
    for process in processes:
        try:
            files = os.listdir(f"/proc/{process}/fd")
        except OSError:
            continue  # ended, or not ours to look at
        for file in files:
            try:
                status = os.stat(f"/proc/{process}/fd/{file}")
            except OSError:
                continue
            if status.st_nlink == 0 and status.st_dev == disk and stat.S_ISREG(status.st_mode):
                found[status.st_ino] = 512 * status.st_blocks
    return sum(found.values())


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_frsize * disk.f_bfree
