"""The tool `browser`, with a program that stands in for chromium."""

import pytest

from expertmesh.agent.tools.browser import BrowserTool
from expertmesh.agent.tools.tool import Status
from expertmesh.agent.web.browser.launch import LaunchError
from expertmesh.agent.web.browser.page import LoadedPage
from expertmesh.agent.web.browser.visit import Visited
from expertmesh.agent.web.guard import AllowedHost, Guard

URL = "http://127.0.0.1:8080/a"
GUARD = Guard([AllowedHost("127.0.0.1", 8080)])


class FakeBrowser:
    def __init__(self, page: LoadedPage | Exception):
        self.page = page
        self.asked: list[str] = []

    async def load(self, url: str) -> LoadedPage:
        self.asked.append(url)
        if isinstance(self.page, Exception):
            raise self.page
        return self.page


def tool(page: LoadedPage | Exception) -> tuple[BrowserTool, FakeBrowser]:
    browser = FakeBrowser(page)
    return BrowserTool(browser, GUARD), browser


async def test_a_page_is_marked_with_what_it_could_not_load() -> None:
    visited = Visited("<title>A</title><p>scripted", url=f"{URL}/last#x", status=200)
    page = LoadedPage(visited, ("10.0.0.1 is refused (private)",))
    result = await tool(page)[0].call({"url": URL})
    assert result.status is Status.OK
    lines = result.text.splitlines()
    assert lines[1:] == [
        f"URL: {URL}/last",
        "Title: A",
        "Not loaded: 10.0.0.1 is refused (private)",
        "",
        "scripted",
        lines[-1],
    ]
    assert "end of the text from outside" in lines[-1]
    assert [source.place for source in result.sources] == [f"{URL}/last"]


@pytest.mark.parametrize(
    ("page", "status", "words"),
    [
        (
            LoadedPage(Visited("<pre>refused: x</pre>", url=URL), ("169.254.169.254 is refused",)),
            Status.REFUSED,
            "169.254.169.254",
        ),
        (LoadedPage(Visited(url="chrome-error://x/")), Status.FAILED, "could not be loaded"),
        (LoadedPage(Visited(url="about:blank")), Status.FAILED, "could not be loaded"),
        (LoadedPage(Visited(problem="no usable sandbox")), Status.FAILED, "no usable sandbox"),
        (LaunchError("no namespaces"), Status.FAILED, "no namespaces"),
        (TimeoutError(), Status.TIMED_OUT, "took too long"),
    ],
)
async def test_a_page_that_is_not_there_says_why(
    page: LoadedPage | Exception, status: Status, words: str
) -> None:
    result = await tool(page)[0].call({"url": URL})
    assert result.status is status
    assert words in result.text
    assert result.sources == ()


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("http://127.0.0.1:1/", Status.REFUSED),
        ("http://169.254.169.254/", Status.REFUSED),
        ("file:///etc/passwd", Status.FAILED),
        ("chrome://settings", Status.FAILED),
        ("--no-sandbox", Status.FAILED),
        ("http://nowhere.invalid/", Status.FAILED),
    ],
)
async def test_a_forbidden_address_does_not_reach_the_browser(url: str, status: Status) -> None:
    one, browser = tool(LoadedPage(Visited("<p>secret", url=URL)))
    result = await one.call({"url": url})
    assert result.status is status
    assert browser.asked == []


async def test_an_error_of_the_server_is_shown_with_its_page() -> None:
    page = LoadedPage(Visited("<p>Sign in first", url=URL, status=403))
    result = await tool(page)[0].call({"url": URL})
    assert (result.status, "\nStatus: 403\n" in result.text) == (Status.OK, True)
