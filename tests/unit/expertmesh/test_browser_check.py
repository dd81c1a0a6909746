"""`expertmesh doctor` says with what pages are read; the agent can do without a browser."""

import pytest

from expertmesh.agent.web.browser import programs as browser_programs
from expertmesh.check import Verdict
from expertmesh.doctor import check_browser


@pytest.mark.parametrize(
    ("browser", "bubblewrap", "found"),
    [
        (None, "/usr/bin/bwrap", "none: pages are read without their scripts (package chromium)"),
        ("/a/chromium", "/usr/bin/bwrap", "/a/chromium in bubblewrap (no network but our proxy)"),
        ("/a/chromium", None, "/a/chromium, kept to our proxy by its flags"),
    ],
)
def test_what_there_is_is_named(
    monkeypatch: pytest.MonkeyPatch, browser: str | None, bubblewrap: str | None, found: str
) -> None:
    monkeypatch.setattr(browser_programs, "find_browser", lambda: browser)
    monkeypatch.setattr(browser_programs, "find_bubblewrap", lambda: bubblewrap)
    check = check_browser()
    assert (check.name, check.verdict, check.found) == ("agent browser", Verdict.OK, found)
