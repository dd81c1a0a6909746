"""Does a command, with all its descendants, keep within its limits? Asked while it runs."""

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil

from expertmesh.agent.sandbox.policy import Ending, Limits
from expertmesh.agent.sandbox.process.growth import Growth

T = TypeVar("T")

FIRST_LOOK_S, PAUSE_S = 0.05, 0.1


@dataclass(frozen=True)
class Usage:
    """Of all descendants of a process, without itself."""

    processes: tuple[psutil.Process, ...]
    memory_bytes: int
    """Resident; pages that several share count for each."""
    cpu_s: float
    """Also of those that have ended."""


def descendants(pid: int) -> list[psutil.Process]:
    """All, in any session; none if the process is gone."""
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def group_of(pid: int) -> list[psutil.Process]:
    """All of the process group that a process leads, whoever their parent is by now."""
    found: list[psutil.Process] = []
    for member in psutil.pids():
        with suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if os.getpgid(member) == pid:
                found.append(psutil.Process(member))
    return found


def usage(pid: int) -> Usage:
    """What the descendants of a process use now."""
    found: list[psutil.Process] = []
    memory_bytes, cpu_s = 0, 0.0
    try:
        times = psutil.Process(pid).cpu_times()
        cpu_s = times.children_user + times.children_system
    except psutil.NoSuchProcess:
        return Usage((), 0, 0.0)
    for process in descendants(pid):
        try:
            with process.oneshot():
                times, memory = process.cpu_times(), process.memory_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        found.append(process)
        memory_bytes += memory.rss
        cpu_s += times.user + times.system + times.children_user + times.children_system
    return Usage(tuple(found), memory_bytes, cpu_s)


def own_memory_bytes(processes: Sequence[psutil.Process]) -> int:
    """Resident memory, with shared pages counted once; takes some milliseconds a process."""
    total = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            try:
                total += process.memory_full_info().pss
            except psutil.AccessDenied:
                total += process.memory_info().rss
    return total


class Watchdog:
    """Looks at the descendants of a process ten times a second."""

    def __init__(self, pid: int, limits: Limits, folders: Sequence[Growth], helpers: int):
        """`helpers`: how many of the descendants belong to the sandbox itself."""
        self._pid, self._limits, self._folders = pid, limits, folders
        self._helpers = helpers
        self.last_seen: tuple[psutil.Process, ...] = ()
        """Of the latest look; some may have ended since."""
        self._looking: set[asyncio.Future[Any]] = set()

    async def watch(self) -> Ending:
        """Return when a limit is passed, and which."""
        looks = [
            asyncio.create_task(self._repeat(look))
            for look in (self.look_at_processes, self.look_at_folders)
        ]
        try:
            done, _ = await asyncio.wait(looks, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for one in looks:
                one.cancel()

    async def in_thread(self, look: Callable[[], T]) -> T:
        """What it finds. If this is cancelled, the thread goes on, and `stop` waits for it."""
        looking = asyncio.get_running_loop().run_in_executor(None, look)
        self._looking.add(looking)
        looking.add_done_callback(self._looking.discard)
        return await asyncio.shield(looking)

    async def stop(self) -> None:
        """Wait for the looks that were begun."""
        for folder in self._folders:
            folder.stop()
        if self._looking:
            await asyncio.wait(self._looking)

    def look_at_processes(self) -> Ending | None:
        """Which limit they have passed, if one."""
        used = usage(self._pid)
        self.last_seen = used.processes
        most_bytes = self._limits.memory_bytes
        if used.memory_bytes > most_bytes and own_memory_bytes(used.processes) > most_bytes:
            return Ending.MEMORY
        if used.cpu_s > self._limits.cpu_s:
            return Ending.CPU_TIME
        if len(used.processes) - self._helpers > self._limits.processes:
            return Ending.PROCESSES
        return None

    def look_at_folders(self) -> Ending | None:
        """Whether one has grown too much; by itself, since large ones take their time."""
        pids = [process.pid for process in self.last_seen]
        is_over = any(folder.is_over(pids) for folder in self._folders)
        return Ending.GROWTH if is_over else None

    async def _repeat(self, look: Callable[[], Ending | None]) -> Ending:
        await asyncio.sleep(FIRST_LOOK_S)
        while True:
            ending = await self.in_thread(look)
            if ending is not None:
                return ending
            await asyncio.sleep(PAUSE_S)
