"""When has a page loaded, and what does it hold then?

It has loaded when its own event says so and then nothing is requested for a moment. Pages that ask
for ever are read after a while as they are.
"""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from expertmesh.agent.web.browser.devtools import DevTools, DevToolsError

_POLL_S = 0.05
_ABORTED = "net::ERR_ABORTED"


@dataclass(frozen=True, kw_only=True)
class VisitLimits:
    """How long to wait for a page, and how much of it to take."""

    load_s: float = 12.0
    """For all of it."""
    settle_s: float = 4.0
    """After its load event, for what its scripts ask for."""
    quiet_s: float = 0.5
    """Without a request, after which it has loaded."""
    read_s: float = 3.0
    """For its DOM, and once more after its scripts were stopped."""
    dom_chars: int = 3_000_000


@dataclass(frozen=True)
class Visited:
    """What a page came to."""

    html: str = ""
    cut: bool = False
    url: str = ""
    """Where it has led, by redirects and by scripts."""
    status: int = 0
    """Of HTTP; 0 if there was none."""
    problem: str = ""
    """Why there is no page, if there is none."""


class Activity:
    """What the browser tells of a page while it loads."""

    def __init__(self) -> None:
        self.frame = ""
        """The page itself, not the frames in it."""
        self.status = 0
        self.crashed = False
        self.has_dialog = asyncio.Event()
        self.loaded_at: float | None = None
        self._asked: set[str] = set()
        self._last = 0.0

    def event(self, method: str, given: dict[str, Any]) -> None:
        now = asyncio.get_running_loop().time()
        of_page = given.get("frameId") == self.frame
        if method == "Network.requestWillBeSent":
            self._asked.add(given["requestId"])
        elif method in ("Network.loadingFinished", "Network.loadingFailed"):
            self._asked.discard(given["requestId"])
        elif method == "Network.responseReceived" and given.get("type") == "Document" and of_page:
            self.status = given["response"]["status"]
        elif method == "Page.frameStartedLoading" and of_page:
            self.loaded_at = None
        elif method == "Page.loadEventFired":
            self.loaded_at = now
        elif method == "Page.javascriptDialogOpening":
            self.has_dialog.set()
        elif method in ("Inspector.targetCrashed", "Target.targetCrashed"):
            self.crashed = True
        else:
            return
        self._last = now

    def is_over(self, limits: VisitLimits) -> bool:
        """Whether nothing more is to be expected."""
        if self.crashed:
            return True
        if self.loaded_at is None:
            return False
        now = asyncio.get_running_loop().time()
        is_quiet = not self._asked and now - self._last >= limits.quiet_s
        return is_quiet or now - self.loaded_at >= limits.settle_s


async def visit(tools: DevTools, activity: Activity, url: str, limits: VisitLimits) -> Visited:
    """Load a page in a new tab. Raises DevToolsError, and TimeoutError if it cannot be read."""
    await tools.call("Browser.setDownloadBehavior", behavior="deny")
    made = await tools.call("Target.createTarget", url="about:blank")
    target = made["targetId"]
    attached = await tools.call("Target.attachToTarget", targetId=target, flatten=True)
    session = attached["sessionId"]
    activity.frame = target  # of a page, both have one id
    await tools.call("Page.enable", session)
    await tools.call("Network.enable", session, maxTotalBufferSize=0, maxResourceBufferSize=0)
    dialogs = asyncio.create_task(_dismiss_dialogs(tools, session, activity))
    going = asyncio.create_task(tools.call("Page.navigate", session, url=url))
    try:
        await _wait(going, activity, limits)
        said = going.result() if going.done() else {}
        if said.get("isDownload") or said.get("errorText") == _ABORTED:
            return Visited(
                problem=f"{url} is a download and no page; fetch can read it if it is text"
            )
        if activity.crashed:
            return Visited(problem="the page crashed the browser's tab")
        if said.get("errorText"):  # what has loaded then is the browser's own page about it
            return Visited(problem=f"{url} could not be loaded: {said['errorText']}")
        return await _read(tools, session, activity, limits)
    finally:
        for task in (dialogs, going):
            task.cancel()
        await asyncio.gather(dialogs, going, return_exceptions=True)


async def _wait(going: asyncio.Task[Any], activity: Activity, limits: VisitLimits) -> None:
    end = asyncio.get_running_loop().time() + limits.load_s
    while asyncio.get_running_loop().time() < end and not activity.is_over(limits):
        if going.done() and going.result().get("errorText"):
            return
        await asyncio.sleep(_POLL_S)


async def _dismiss_dialogs(tools: DevTools, session: str, activity: Activity) -> None:
    """A page waits in `alert` until somebody answers."""
    while True:
        await activity.has_dialog.wait()
        activity.has_dialog.clear()
        try:
            await tools.call("Page.handleJavaScriptDialog", session, accept=False)
        except DevToolsError:
            continue  # it is gone already


async def _read(tools: DevTools, session: str, activity: Activity, limits: VisitLimits) -> Visited:
    """The DOM. Scripts that never end are stopped for it."""
    try:
        async with asyncio.timeout(limits.read_s):
            return await _dom(tools, session, activity, limits)
    except TimeoutError:
        async with asyncio.timeout(limits.read_s):
            await tools.call("Runtime.terminateExecution", session)
            return await _dom(tools, session, activity, limits)


async def _dom(tools: DevTools, session: str, activity: Activity, limits: VisitLimits) -> Visited:
    """Read in a world of its own, in which a page cannot change what the words mean."""
    world = await tools.call("Page.createIsolatedWorld", session, frameId=activity.frame)
    most = limits.dom_chars
    expression = (
        "(() => { const all = document.documentElement?.outerHTML ?? '';"
        f" return JSON.stringify([location.href, all.length > {most}, all.slice(0, {most})]); }})()"
    )
    said = await tools.call(
        "Runtime.evaluate",
        session,
        expression=expression,
        contextId=world["executionContextId"],
        returnByValue=True,
    )
    value = said.get("result", {}).get("value")
    if not isinstance(value, str):
        raise DevToolsError("the page's text could not be read")
    url, cut, html = json.loads(value)
    return Visited(html, cut, url, activity.status)
