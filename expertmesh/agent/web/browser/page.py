"""What does a page look like after its scripts have run?

One browser for each page: it is started, loads the page, and is ended with all that it has started.
Everything it loads comes through the checking proxy.
"""

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass, field

import psutil

from expertmesh.agent.web.browser.devtools import DevTools, DevToolsError
from expertmesh.agent.web.browser.launch import Launched, launched
from expertmesh.agent.web.browser.visit import Activity, Visited, VisitLimits, visit
from expertmesh.agent.web.guard import Guard
from expertmesh.agent.web.proxy import CheckingProxy, ProxyLimits

_LOOK_S = 0.5
_POLL_S = 0.02
_REST_S = 1.0
_END_S = 5.0
_PIECE_BYTES = 64 << 10
_SAID_CHARS = 300


@dataclass(frozen=True, kw_only=True)
class BrowserLimits:
    """What one page may take."""

    wall_s: float = 30.0
    memory_bytes: int = 3 << 30
    """Resident, of all its processes; pages that they share count for each."""
    visit: VisitLimits = field(default_factory=VisitLimits)
    proxy: ProxyLimits = field(default_factory=ProxyLimits)


@dataclass(frozen=True)
class LoadedPage:
    """A page, and what it asked for in vain."""

    visited: Visited
    refused: tuple[str, ...] = ()


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
        """A URL that has been through `parse_url`.

        Raises TimeoutError, and LaunchError of launch.py.
        """
        proxy = CheckingProxy(self._guard, self._limits.proxy)
        async with asyncio.timeout(self._limits.wall_s):
            async with launched(self._executable, self._bubblewrap) as browser:
                try:
                    async with proxy.serving(browser.listener):
                        visited = await self._visited(browser, url)
                finally:
                    await _end(browser)
        return LoadedPage(visited, tuple(proxy.traffic.refused))

    async def _visited(self, browser: Launched, url: str) -> Visited:
        """The page, or what kept the browser from it."""
        assert browser.process.stderr is not None
        activity = Activity()
        tools = DevTools(activity.event)
        await tools.open(browser.from_browser, browser.to_browser)
        errors = asyncio.create_task(_last_bytes(browser.process.stderr))
        watch = asyncio.create_task(_outgrown(browser.process.pid, self._limits.memory_bytes))
        visiting = asyncio.create_task(visit(tools, activity, url, self._limits.visit))
        tasks = (errors, watch, visiting)
        try:
            await asyncio.wait({watch, visiting}, return_when=asyncio.FIRST_COMPLETED)
            if not visiting.done():
                return Visited(problem="the page took too much memory")
            return visiting.result()
        except DevToolsError as error:
            await asyncio.wait({errors}, timeout=_REST_S)
            said = errors.result().decode("utf-8", "replace").strip() if errors.done() else ""
            return Visited(problem=f"{error}: {said[-_SAID_CHARS:]}" if said else str(error))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await tools.close()


async def _last_bytes(stream: asyncio.StreamReader) -> bytes:
    last = b""
    while piece := await stream.read(_PIECE_BYTES):
        last = (last + piece)[-_PIECE_BYTES:]
    return last


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
    assert browser.process.stderr is not None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_S):
            while any(_runs(process) for process in family):
                await asyncio.sleep(_POLL_S)
            # asyncio takes a process for running as long as its pipe has not been read to the end
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
