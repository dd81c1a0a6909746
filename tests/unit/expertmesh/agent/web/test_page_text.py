"""Which reader reads a page, and what comes of one that fails."""

import os
from pathlib import Path

import pytest

from expertmesh.agent.sandbox.folders.identity import NOBODY
from expertmesh.agent.web import page_text as page_text_module
from expertmesh.agent.web.page_text import (
    NotTextError,
    html_page,
    page_text,
    trafilatura_is_installed,
)

URL = "http://a.test/"
HTML = "<title>T</title><p>" + "own words " * 30


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is imported as trafilatura in the child."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(page_text_module, "trafilatura_is_installed", lambda: True)
    return tmp_path / "trafilatura.py"


def write(stand_in: Path, body: str) -> None:
    stand_in.write_text(f"def extract(html, **options):\n    {body}\n")


async def text_by(stand_in: Path, body: str) -> str:
    write(stand_in, body)
    return (await html_page(HTML, URL)).text


async def test_trafilatura_is_used_where_it_is_installed(stand_in: Path) -> None:
    assert await text_by(stand_in, "return 'main ' * 50 + options['url']") == "main " * 50 + URL
    assert (await html_page(HTML, URL)).title == "T"


@pytest.mark.parametrize(
    "body",
    ["return None", "return 'too short'", "raise ValueError('x')", "import os; os._exit(0)"],
)
async def test_where_it_finds_nothing_our_own_reader_does(stand_in: Path, body: str) -> None:
    assert (await text_by(stand_in, body)).startswith("own words")


async def test_one_that_hangs_is_ended(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_text_module, "_CHILD_WALL_S", 0.5)
    assert (await text_by(stand_in, "import time; time.sleep(60)")).startswith("own words")


async def test_it_gets_no_secrets(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-key-of-user")
    text = await text_by(stand_in, "import os; return str(os.environ) + ' word' * 50")
    assert "PYTHONPATH" in text
    assert "sk-key-of-user" not in text


async def test_it_does_not_read_a_page_as_root(stand_in: Path) -> None:
    text = await text_by(stand_in, "import os; return f'uid {os.geteuid()}' + ' word' * 50")
    assert text.startswith(f"uid {os.geteuid() or NOBODY.uid} ")


@pytest.mark.skipif(not trafilatura_is_installed(), reason="the extra `web` is not installed")
async def test_trafilatura_itself_keeps_text_links_and_tables() -> None:
    words = "A sentence of the article that says a few things about the house of cards. " * 5
    page = await html_page(
        f"<html><head><title>T</title></head><body><nav><a href=/n>menu</a></nav><article>"
        f"<h1>Head</h1><p>{words}</p><p>{words}</p><table><tr><th>a<th>b<tr><td>1<td>2</table>"
        "</article></body></html>",
        URL,
    )
    assert "A sentence of the article" in page.text
    assert "menu" not in page.text
    assert "| 1 | 2 |" in page.text


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        (b"<p>a", "text/html; charset=utf-8", "a"),
        (b"  <html><p>a", "", "a"),
        (b"a < b", "text/plain", "a < b"),
        (b"<a>b</a>", "application/xml", "<a>b</a>"),
        (b'{"a": 1}', "application/vnd.api+json", '{"a": 1}'),
        (b"a,b", "", "a,b"),
        (b"", "text/html", ""),
    ],
)
async def test_text_is_read_by_its_type(body: bytes, content_type: str, text: str) -> None:
    assert (await page_text(body, content_type, URL)).text == text


@pytest.mark.parametrize("content_type", ["image/png", "application/pdf", "video/mp4", "x"])
async def test_what_is_no_text_is_refused(content_type: str) -> None:
    with pytest.raises(NotTextError, match=content_type):
        await page_text(b"%PDF", content_type, URL)


async def test_a_long_text_is_cut() -> None:
    page = await page_text(b"a" * (page_text_module.MAX_TEXT_CHARS + 1), "text/plain", URL)
    assert (page.cut, len(page.text)) == (True, page_text_module.MAX_TEXT_CHARS)
