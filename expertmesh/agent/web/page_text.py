"""What does a fetched page say to a model?

HTML is read by trafilatura where the extra `web` is installed, and otherwise by html_text.py; other
text is taken as it is.
"""

import asyncio
import importlib.util
import os
import sys
from pathlib import Path

from expertmesh.agent.web.charset import decode
from expertmesh.agent.web.html_text import MAX_TEXT_CHARS, Page, read_html

_CHILD = Path(__file__).with_name("trafilatura_child.py")
_CHILD_WALL_S = 10.0
_KEPT_VARIABLES = ("PATH", "HOME", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
_HTML = frozenset({"text/html", "application/xhtml+xml"})
_TEXT = frozenset(
    {
        *("application/json", "application/ld+json", "application/x-ndjson"),
        *("application/xml", "application/javascript"),
        *("application/yaml", "application/x-yaml", "application/toml"),
    }
)
_ENOUGH_CHARS = 200


class NotTextError(Exception):
    """A page without text: an image, an archive, a PDF."""


def trafilatura_is_installed() -> bool:
    """Without lxml_html_clean it cannot be imported, and its own message does not say so."""
    return all(importlib.util.find_spec(name) for name in ("trafilatura", "lxml_html_clean"))


async def page_text(body: bytes, content_type: str, url: str) -> Page:
    """Raises NotTextError."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in _HTML or (not media_type and body.lstrip()[:1] == b"<"):
        return await html_page(decode(body, content_type), url)
    of_text = media_type.startswith("text/") or media_type.endswith(("+json", "+xml"))
    if not (of_text or media_type in _TEXT or not media_type) or b"\0\0\0" in body[:4096]:
        raise NotTextError(f"the page is {media_type[:60] or 'binary'}, which is no text")
    text = decode(body, content_type)
    return Page("", text[:MAX_TEXT_CHARS], cut=len(text) > MAX_TEXT_CHARS)


async def html_page(html: str, url: str) -> Page:
    """Of a page that is a string already, such as the browser's."""
    page = await asyncio.to_thread(read_html, html, url)
    if not trafilatura_is_installed():
        return page
    text = (await _by_trafilatura(html, url))[:MAX_TEXT_CHARS]
    enough = len(text) >= min(_ENOUGH_CHARS, len(page.text))
    return Page(page.title, text) if enough and text else page


async def _by_trafilatura(html: str, url: str) -> str:
    """ "" where it finds nothing, fails or takes too long."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", str(_CHILD), url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
    )
    try:
        async with asyncio.timeout(_CHILD_WALL_S):
            output, _ = await child.communicate(html.encode("utf-8", "replace"))
        return output.decode("utf-8", "replace").strip() if child.returncode == 0 else ""
    except TimeoutError:
        return ""
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
