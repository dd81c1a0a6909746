"""When a page counts as loaded, and what stops one that never does."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from expertmesh.agent.web.browser.devtools import DevToolsError
from expertmesh.agent.web.browser.visit import Activity, Visited, VisitLimits, visit

QUICK = VisitLimits(load_s=0.6, settle_s=0.3, quiet_s=0.05, read_s=0.2)
LOADED = ("Page.loadEventFired", {})


def asked(number: str) -> tuple[str, dict[str, Any]]:
    return ("Network.requestWillBeSent", {"requestId": number})


def answered(number: str) -> tuple[str, dict[str, Any]]:
    return ("Network.loadingFinished", {"requestId": number})


def response(status: int, frame: str = "page") -> tuple[str, dict[str, Any]]:
    given = {"type": "Document", "frameId": frame, "response": {"status": status}}
    return ("Network.responseReceived", given)


class FakeTools:
    """Answers a visit's commands; `events` come after the navigation."""

    def __init__(
        self,
        activity: Activity,
        *events: tuple[str, dict[str, Any]],
        navigated: dict[str, Any] | None = None,
        hangs: int = 0,
        value: Any = None,
    ):
        self.activity = activity
        self.events = events
        self.navigated = navigated or {}
        self.hangs = hangs
        self.value = value
        self.called: list[str] = []

    async def call(self, method: str, session: str = "", **given: Any) -> dict[str, Any]:
        self.called.append(method)
        if method == "Page.navigate":
            for event in self.events:
                self.activity.event(*event)
            return self.navigated
        if method == "Runtime.evaluate":
            if self.hangs:
                self.hangs -= 1
                await asyncio.sleep(60)
            value = self.value or json.dumps(["http://a.test/last", False, "<p>a"])
            return {"result": {"value": value}}
        return {
            "Target.createTarget": {"targetId": "page"},
            "Target.attachToTarget": {"sessionId": "s"},
            "Page.createIsolatedWorld": {"executionContextId": 7},
        }.get(method, {})


Make = Callable[[Activity], FakeTools]


async def visited(make: Make) -> tuple[Visited, FakeTools, float]:
    activity = Activity()
    tools = make(activity)
    began_s = asyncio.get_running_loop().time()
    page = await visit(tools, activity, "http://a.test/", QUICK)  # type: ignore[arg-type]
    return page, tools, asyncio.get_running_loop().time() - began_s


async def test_a_quiet_page_is_read_with_its_status_and_last_address() -> None:
    page, tools, _ = await visited(
        lambda of: FakeTools(
            of, asked("1"), response(404), response(500, "f"), answered("1"), LOADED
        )
    )
    assert page == Visited("<p>a", False, "http://a.test/last", 404)
    assert tools.called[0] == "Browser.setDownloadBehavior"
    assert "Runtime.terminateExecution" not in tools.called


@pytest.mark.parametrize(
    ("events", "waits_s"),
    [
        ([LOADED], 0.05),
        ([LOADED, asked("long poll")], QUICK.settle_s),
        ([asked("1")], QUICK.load_s),
        ([LOADED, ("Page.frameStartedLoading", {"frameId": "page"})], QUICK.load_s),
        ([LOADED, ("Page.frameStartedLoading", {"frameId": "inner"})], 0.05),
    ],
)
async def test_it_waits_as_long_as_something_is_to_come(
    events: list[tuple[str, dict[str, Any]]], waits_s: float
) -> None:
    page, _, took_s = await visited(lambda of: FakeTools(of, *events))
    assert page.html == "<p>a"
    assert took_s >= waits_s


@pytest.mark.parametrize(
    ("navigated", "words"),
    [
        ({"errorText": "net::ERR_ABORTED"}, "is a download"),
        ({"isDownload": True, "errorText": "net::ERR_ABORTED"}, "is a download"),
        ({"errorText": "net::ERR_TUNNEL_CONNECTION_FAILED"}, "ERR_TUNNEL_CONNECTION_FAILED"),
    ],
)
async def test_a_page_that_cannot_be_had_says_why(navigated: dict[str, Any], words: str) -> None:
    page, tools, _ = await visited(lambda of: FakeTools(of, LOADED, navigated=navigated))
    assert words in page.problem
    assert "Runtime.evaluate" not in tools.called


async def test_a_crash_is_told() -> None:
    page, _, _ = await visited(lambda of: FakeTools(of, ("Inspector.targetCrashed", {})))
    assert "crashed" in page.problem


async def test_a_dialog_is_dismissed() -> None:
    _, tools, _ = await visited(
        lambda of: FakeTools(of, ("Page.javascriptDialogOpening", {}), LOADED)
    )
    assert "Page.handleJavaScriptDialog" in tools.called


async def test_scripts_that_never_end_are_stopped_once() -> None:
    page, tools, _ = await visited(lambda of: FakeTools(of, LOADED, hangs=1))
    assert page.html == "<p>a"
    assert tools.called.count("Runtime.terminateExecution") == 1
    with pytest.raises(TimeoutError):
        await visited(lambda of: FakeTools(of, LOADED, hangs=2))


async def test_a_page_without_a_readable_dom_is_an_error() -> None:
    with pytest.raises(DevToolsError, match="could not be read"):
        await visited(lambda of: FakeTools(of, LOADED, value=7))
