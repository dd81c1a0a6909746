"""Start a browser so that its only way out is a socket of ours: by bubblewrap, or by its flags.

With bubblewrap it has a network without any interface but loopback, its own processes, and no files
but programs and fonts. Without, chromium's flags keep it to the proxy. Never as root: then it is
started as the user nobody.
"""

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from expertmesh.agent.sandbox.folders.identity import as_user, give_away
from expertmesh.agent.web.browser.chromium_flags import PREFERENCES, chromium_argv
from expertmesh.agent.web.browser.programs import (
    PROFILE,
    bubblewrap_argv,
    environment,
    other_user,
    python,
)
from expertmesh.agent.web.browser.starter import PORT_WORD

_STARTER = Path(__file__).with_name("starter.py")
_START_S = 10.0
_SAID_CHARS = 500


class LaunchError(Exception):
    """A browser that does not start; the text says what is missing."""


@dataclass(frozen=True)
class Launched:
    """A running browser."""

    process: asyncio.subprocess.Process
    listener: socket.socket
    """Where it looks for its proxy."""
    from_browser: BinaryIO
    to_browser: BinaryIO
    profile: str | None
    """The HOME of all its processes; None if they die with the first."""


@asynccontextmanager
async def launched(executable: str, bubblewrap: str | None) -> AsyncIterator[Launched]:
    """Who gets it ends the process, and closes the pipes if it has not handed them on.

    Raises LaunchError.
    """
    if bubblewrap:
        before = bubblewrap_argv(bubblewrap, executable)
        browser = await _start(before, executable, PROFILE, home="/")
        with browser.listener:
            yield browser
        return
    with _profile() as profile:
        browser = await _start([], executable, profile, home=profile)
        with browser.listener:
            yield browser


async def _start(before: Sequence[str], executable: str, profile: str, home: str) -> Launched:
    ours, channel = socket.socketpair()
    commands_out, commands_in = os.pipe()
    answers_out, answers_in = os.pipe()
    inherited = [channel.detach(), commands_out, answers_in]
    argv = [
        *before,
        *(python()[0], "-I", "-S", "-c", _STARTER.read_text(encoding="utf-8")),
        *(*map(str, inherited), profile, PREFERENCES),
        *chromium_argv(executable, profile, PORT_WORD),
    ]
    pipes = os.fdopen(answers_out, "rb", buffering=0), os.fdopen(commands_in, "wb", buffering=0)
    try:
        with ours:
            starting = asyncio.create_task(_process(argv, home, inherited))
            try:
                process = await asyncio.shield(starting)  # asyncio would kill it alone
                listener = await _received(ours)
            except asyncio.CancelledError:
                await _ended(await starting)
                raise
        if listener is None:
            said = (await _ended(process)).decode("utf-8", "replace").strip()
            raise LaunchError(f"the browser did not start: {said[-_SAID_CHARS:]}")
    except BaseException:
        for pipe in pipes:
            pipe.close()
        raise
    return Launched(process, listener, *pipes, None if before else profile)


async def _process(
    argv: Sequence[str], home: str, inherited: Sequence[int]
) -> asyncio.subprocess.Process:
    """Started; what it inherits is closed here."""
    try:
        return await asyncio.create_subprocess_exec(
            *as_user(other_user(), argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environment(home),
            cwd="/",
            pass_fds=inherited,
            start_new_session=True,
        )
    except OSError as error:
        raise LaunchError(f"the browser did not start: {error}") from None
    finally:
        for file in inherited:
            os.close(file)


async def _ended(process: asyncio.subprocess.Process) -> bytes:
    """What it wrote to stderr until it was killed, with all that it was about to start.

    bwrap's first child waits for bwrap, and would do so for ever.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
    return (await process.communicate())[1]


async def _received(channel: socket.socket) -> socket.socket | None:
    """The listening socket that comes through a Unix socket; None if that ends without one."""
    channel.setblocking(False)
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(channel, readable.set)
    try:
        async with asyncio.timeout(_START_S):
            await readable.wait()
        _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    except OSError:  # a time limit, too
        return None
    finally:
        loop.remove_reader(channel)
    return socket.socket(fileno=descriptors[0]) if descriptors else None


@contextmanager
def _profile() -> Iterator[str]:
    """A folder of the browser's user, removed with all that is in it."""
    with tempfile.TemporaryDirectory(prefix="expertmesh-browser-") as folder:
        give_away(Path(folder))
        yield folder
