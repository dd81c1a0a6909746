"""The tool `browser`, with a program that stands in for chromium."""

import pytest

from expertmesh.agent.tools.browser import BrowserTool
from expertmesh.agent.tools.tool import Status
from expertmesh.agent.web.browser_page import LoadedPage
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
    page = LoadedPage("<title>A</title><p>scripted", False, ("10.0.0.1 is refused (private)",))
    result = await tool(page)[0].call({"url": URL})
    assert result.status is Status.OK
    lines = result.text.splitlines()
    assert lines[1:] == [
        f"URL: {URL}",
        "Title: A",
        "Not loaded: 10.0.0.1 is refused (private)",
        "",
        "scripted",
        lines[-1],
    ]
    assert "end of the text from outside" in lines[-1]
    assert [source.place for source in result.sources] == [URL]


REFUSED = ("169.254.169.254 is refused",)


@pytest.mark.parametrize(
    ("page", "status", "words"),
    [
        (LoadedPage("<pre>refused: x</pre>", False, REFUSED), Status.REFUSED, "169.254.169.254"),
        (
            LoadedPage('<body id="t" class="neterror">x', False, ()),
            Status.FAILED,
            "could not be loaded",
        ),
        (LoadedPage("", False, (), "no usable sandbox"), Status.FAILED, "no usable sandbox"),
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
    one, browser = tool(LoadedPage("<p>secret", False, ()))
    result = await one.call({"url": url})
    assert result.status is status
    assert browser.asked == []
