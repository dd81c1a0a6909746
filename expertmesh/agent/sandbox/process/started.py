"""A started process on the event loop: its output, its exit, and what it says about itself."""

import asyncio
import fcntl
import json
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from expertmesh.agent.sandbox.process.limits import Watchdog, descendants, group_of
from expertmesh.agent.sandbox.process.output import KeptOutput

logger = logging.getLogger(__name__)

PIECE_BYTES = 64 << 10
PATIENCE_S = 30.0
"""For a sandbox that ends all by itself, which nobody else can do as well: on a busy machine it has
to wait for its turn."""
GONE_S, READ_S = 30.0, 5.0
"""What is killed is soon gone, but for a dead disk's sake nobody waits for ever."""
POLL_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A command line that starts a sandbox around a command."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    files: Sequence[int] = ()
    """Files that it inherits; this process closes them after the start."""
    status_file: int | None = None
    """Where it tells about itself: lines of JSON with `child-pid`, `exit-code`, `error`. In memory,
    inherited, and closed by `Started.close`: whoever wrote to a pipe would die with its reader."""
    growing: Sequence[tuple[Path, int]] = ()
    """Folders, and by how many bytes they may grow."""
    ends_all_on: int = signal.SIGKILL
    """The signal on which it takes all its descendants along."""
    helpers: int = 0
    """How many of its descendants belong to the sandbox."""
    folder: Path | None = None


def file_with(content: bytes = b"") -> int:
    """A file in memory, to be inherited, that has this content."""
    file = os.memfd_create("expertmesh")
    os.write(file, content)
    os.lseek(file, 0, os.SEEK_SET)
    return file


class Started:
    """Made on the event loop that it is used on. Raises OSError if there is no such program."""

    def __init__(self, prepared: Prepared, outputs: tuple[KeptOutput, KeptOutput], stdin: bytes):
        self._prepared = prepared
        self._stderr, stderr_end = _pipe_of_the_living()
        try:
            self.process = subprocess.Popen(
                prepared.argv,
                env=dict(prepared.environment),
                cwd=prepared.folder,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr_end,
                pass_fds=(*prepared.files, *self._status_files()),
                start_new_session=True,
            )
        except BaseException:
            for file in (self._stderr, *self._status_files()):
                os.close(file)
            raise
        finally:
            for file in (stderr_end, *prepared.files):
                os.close(file)
        self.status: dict[str, Any] = {}
        self._inner: int | None = None
        assert self.process.stdout is not None
        files = self.process.stdout.fileno(), self._stderr
        self._readings = [
            self._read(file, kept.add) for file, kept in zip(files, outputs, strict=True)
        ]
        if stdin:
            self._feed(stdin)

    def _read(self, file: int, take: Callable[[bytes], None]) -> asyncio.Future[None]:
        """Give what comes to `take`; done at the end of the file."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        os.set_blocking(file, False)

        def read() -> None:
            try:
                piece = os.read(file, PIECE_BYTES)
                take(piece)
            except BlockingIOError:
                return
            except Exception as error:  # of the caller's callback
                loop.remove_reader(file)
                ended.set_exception(error)
                return
            if not piece:
                loop.remove_reader(file)
                _set_once(ended)

        loop.add_reader(file, read)
        return ended

    def _status_files(self) -> list[int]:
        return [] if self._prepared.status_file is None else [self._prepared.status_file]

    def _take_status(self) -> None:
        for file in self._status_files():
            for line in os.pread(file, PIECE_BYTES, 0).split(b"\n")[:-1]:
                self.status |= json.loads(line)
        if self._inner is None and "child-pid" in self.status:
            with suppress(OSError):  # gone already
                self._inner = os.pidfd_open(self.status["child-pid"])

    def _feed(self, stdin: bytes) -> None:
        """Write it all and close; a command that does not read is its own affair."""
        assert self.process.stdin is not None
        file, rest = self.process.stdin.fileno(), memoryview(stdin)
        os.set_blocking(file, False)

        def write() -> None:
            nonlocal rest
            try:
                rest = rest[os.write(file, rest) :]
            except BlockingIOError:
                return
            except BrokenPipeError:
                rest = rest[:0]
            if not rest:
                self._stop_feeding()

        asyncio.get_running_loop().add_writer(file, write)

    def _stop_feeding(self) -> None:
        if self.process.stdin is not None and not self.process.stdin.closed:
            asyncio.get_running_loop().remove_writer(self.process.stdin.fileno())
            self.process.stdin.close()

    async def exit(self) -> None:
        """Wait until the process itself has ended; its descendants may still run.

        It is not waited for, so that its number stays its own, and its group's, until `end`.
        """
        if hasattr(os, "pidfd_open"):
            with suppress(ProcessLookupError):  # somebody else waits for this program's children
                await _gone(os.pidfd_open(self.process.pid))
                return
        while self.process.poll() is None:
            await asyncio.sleep(POLL_S)

    async def end(self, watchdog: Watchdog) -> None:
        """End it, if it still runs, and all descendants; return when they are gone.

        May be called again if it was cancelled.
        """
        # Of a sandbox that somebody else has killed, what was seen last may still run.
        doomed = {*watchdog.last_seen, *await watchdog.in_thread(self._descendants)}
        if self._prepared.ends_all_on != signal.SIGKILL and self._signal(
            self._prepared.ends_all_on
        ):
            try:
                await asyncio.wait_for(self.exit(), PATIENCE_S)
            except TimeoutError:  # those who are still its descendants can be found
                doomed |= {*await watchdog.in_thread(self._descendants)}
                _kill(doomed)
        # At once with all that it was about to start, and that nobody could have seen yet.
        is_there = self._signal(signal.SIGKILL, with_group=True)
        _kill(doomed)
        if is_there:  # none of them starts another from now on: who is not there now never will be
            doomed |= {*await watchdog.in_thread(self._group)}
        try:
            async with asyncio.timeout(GONE_S):
                await self.exit()
                await self._end_namespace()
                while any(map(_runs, doomed)):
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            logger.warning("a command was killed %.0f s ago and still is not gone", GONE_S)
        # Nobody is left who could write: what has been written is there to be read.
        _, unread = await asyncio.wait(self._readings, timeout=READ_S)
        if unread:
            logger.warning("something that a command has started goes on, and holds its output")
        self.process.poll()
        await watchdog.stop()

    def _descendants(self) -> list[psutil.Process]:
        return descendants(self.process.pid)

    def _group(self) -> list[psutil.Process]:
        return group_of(self.process.pid)

    async def _end_namespace(self) -> None:
        """Its first process goes as the last."""
        self._take_status()
        if self._inner is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._inner, signal.SIGKILL)
            await _gone(os.dup(self._inner))

    def _signal(self, number: int, *, with_group: bool = False) -> bool:
        """Whether it, or somebody of its group, is there to get the signal."""
        if self.process.returncode is not None:
            return False  # the number may be another's
        try:
            (os.killpg if with_group else os.kill)(self.process.pid, number)
        except (ProcessLookupError, PermissionError):  # of another user, without a sandbox
            return False
        return True

    async def callback_failed(self) -> None:
        """Wait until the caller's callback raises; for ever if it does not."""
        pending = set(self._readings)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if any(one.exception() for one in done):
                return
        await asyncio.get_running_loop().create_future()

    def failure(self) -> BaseException | None:
        """What the caller's callback raised, if it did."""
        errors = [one.exception() for one in self._readings if one.done()]
        return next((error for error in errors if error is not None), None)

    def close(self) -> None:
        """Close all files; to be called last."""
        self.failure()  # or asyncio complains that nobody asked
        self._stop_feeding()
        loop = asyncio.get_running_loop()
        assert self.process.stdout is not None
        loop.remove_reader(self.process.stdout.fileno())
        self.process.stdout.close()
        loop.remove_reader(self._stderr)
        for file in (self._stderr, *self._status_files()):
            os.close(file)
        if self._inner is not None:
            os.close(self._inner)


def _pipe_of_the_living() -> tuple[int, int]:
    """A pipe to this process that is locked, for whom has the other end, while this one lives."""
    reading, writing = os.pipe()
    fcntl.flock(reading, fcntl.LOCK_SH)
    return reading, writing


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.kill()


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _set_once(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _gone(process: int) -> None:
    """Wait until a process, given by its file, has ended, and close the file."""
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[None] = loop.create_future()
    loop.add_reader(process, _set_once, gone)
    try:
        await gone
    finally:
        loop.remove_reader(process)
        os.close(process)
