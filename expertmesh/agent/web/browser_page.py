"""What does a page look like after its scripts have run?

One browser for each page: it is started, prints the page's DOM, and is ended with all that it has
started. Everything it loads comes through the checking proxy.
"""

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass, field

import psutil

from expertmesh.agent.web.browser_launch import Launched, launched
from expertmesh.agent.web.guard import Guard
from expertmesh.agent.web.proxy import CheckingProxy, ProxyLimits

_LOOK_S = 0.5
_POLL_S = 0.02
_REST_S = 1.0
_END_S = 5.0
_PIECE_BYTES = 64 << 10
_ERROR_CHARS = 300


@dataclass(frozen=True, kw_only=True)
class BrowserLimits:
    """What one page may take."""

    wall_s: float = 30.0
    script_ms: int = 5000
    """Virtual time for the page's scripts: it stands still while something loads."""
    memory_bytes: int = 3 << 30
    """Resident, of all its processes; pages that they share count for each."""
    dom_bytes: int = 5 << 20
    proxy: ProxyLimits = field(default_factory=ProxyLimits)


@dataclass(frozen=True)
class LoadedPage:
    """A page's DOM, and what it asked for in vain."""

    html: str
    cut: bool
    refused: tuple[str, ...]
    problem: str = ""
    """Why there is no DOM, if there is none."""


class Browser:
    """Loads pages by one program."""

    def __init__(
        self,
        executable: str,
        guard: Guard,
        bubblewrap: str | None,
        limits: BrowserLimits = BrowserLimits(),
    ):
        self._executable = executable
        self._guard = guard
        self._bubblewrap = bubblewrap
        self._limits = limits

    async def load(self, url: str) -> LoadedPage:
        """The DOM of a URL that has been through `parse_url`.

        Raises TimeoutError, and LaunchError of browser_launch.py.
        """
        limits = self._limits
        proxy = CheckingProxy(self._guard, limits.proxy)
        async with asyncio.timeout(limits.wall_s):
            async with launched(
                self._executable, self._bubblewrap, limits.script_ms, url
            ) as browser:
                try:
                    async with proxy.serving(browser.listener):
                        dom, errors, problem = await self._dom_of(browser.process)
                finally:
                    await _end(browser)
        if not dom and not problem:
            last = errors.decode("utf-8", "replace").strip()[-_ERROR_CHARS:]
            problem = f"the browser printed nothing: {last}"
        html = dom[: limits.dom_bytes].decode("utf-8", "replace")
        cut = len(dom) > limits.dom_bytes
        return LoadedPage(html, cut, tuple(proxy.traffic.refused), problem)

    async def _dom_of(self, process: asyncio.subprocess.Process) -> tuple[bytes, bytes, str]:
        """(what it prints, the end of its messages, what made it end early)."""
        assert process.stdout is not None
        assert process.stderr is not None
        dom = bytearray()
        output = asyncio.create_task(_read_into(dom, process.stdout, self._limits.dom_bytes))
        errors = asyncio.create_task(_last_bytes(process.stderr))
        watch = asyncio.create_task(_outgrown(process.pid, self._limits.memory_bytes))
        exited = asyncio.create_task(_exited(process))
        tasks = {output, errors, watch, exited}
        try:
            await asyncio.wait({output, watch, exited}, return_when=asyncio.FIRST_COMPLETED)
            if watch.done():
                return b"", b"", "the page took too much memory"
            # A process that the browser left behind may hold its pipes open.
            if len(dom) <= self._limits.dom_bytes:
                await asyncio.wait({output, errors}, timeout=_REST_S)
            return bytes(dom), errors.result() if errors.done() else b"", ""
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _read_into(found: bytearray, stream: asyncio.StreamReader, limit: int) -> None:
    """Until the end, or until there are more bytes than `limit`."""
    while len(found) <= limit and (piece := await stream.read(_PIECE_BYTES)):
        found += piece


async def _last_bytes(stream: asyncio.StreamReader) -> bytes:
    last = b""
    while piece := await stream.read(_PIECE_BYTES):
        last = (last + piece)[-_PIECE_BYTES:]
    return last


async def _exited(process: asyncio.subprocess.Process) -> None:
    """Returns when it has ended, even if others hold its pipes: `wait` would wait for them."""
    while process.returncode is None:
        await asyncio.sleep(_POLL_S)


async def _outgrown(pid: int, memory_bytes: int) -> None:
    """Returns when the process and its descendants hold more memory."""
    while True:
        await asyncio.sleep(_LOOK_S)
        held = 0
        for process in _family(pid):
            with contextlib.suppress(psutil.Error):
                held += process.memory_info().rss
        if held > memory_bytes:
            return


def _family(pid: int) -> list[psutil.Process]:
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.Error:
        return []


async def _end(browser: Launched) -> None:
    """Kill the browser's processes and wait until they are gone."""
    family = _family(browser.process.pid)
    if browser.profile is not None:
        family += _of_profile(browser.profile)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(browser.process.pid, signal.SIGKILL)
    for process in family:
        with contextlib.suppress(psutil.Error):
            process.kill()
    assert browser.process.stdout is not None
    assert browser.process.stderr is not None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_S):
            while any(_runs(process) for process in family):
                await asyncio.sleep(_POLL_S)
            # asyncio takes a process for running as long as its pipes have not been read to the end
            await _last_bytes(browser.process.stdout)
            await _last_bytes(browser.process.stderr)
            await browser.process.wait()


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _of_profile(profile: str) -> list[psutil.Process]:
    """Those that left the family, as the one that reports crashes does."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if any(profile in word for word in words) or process.environ().get("HOME") == profile:
                found.append(process)
    return found
