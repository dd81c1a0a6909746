"""Read a page of the web by its address."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from expertmesh.agent.tools.tool import Effect, Result, Source, Status, object_schema
from expertmesh.agent.web.fetching import Fetcher, FetchError
from expertmesh.agent.web.guard import RefusedError
from expertmesh.agent.web.html_text import Page
from expertmesh.agent.web.marking import marked
from expertmesh.agent.web.page_text import NotTextError, page_text
from expertmesh.agent.web.urls import BadUrlError

PART_BYTES = 7 << 10
"""Of a page's text in UTF-8, shown at once: with its marks it fits into MAX_BYTES of clip.py."""
_KEPT_PAGES = 8


PAGE_PARAMETERS = object_schema(
    {"url": {"type": "string", "description": "http://... or https://..."}},
    {"start": {"type": "integer", "minimum": 0, "description": "default 0"}},
)


class Fetch:
    """Gets pages and shows them in parts; the last few are kept for the parts that follow."""

    name = "fetch"
    description = (
        "Read a page of the web by its URL. Long pages come in parts: `start` is the character to "
        "go on from. Scripts of the page do not run."
    )
    parameters = PAGE_PARAMETERS
    effect = Effect.WEB

    def __init__(self, fetcher: Fetcher):
        self._fetcher = fetcher
        self._kept: OrderedDict[str, tuple[str, Page]] = OrderedDict()

    async def call(self, arguments: dict[str, Any]) -> Result:
        asked, start = arguments["url"], int(arguments.get("start", 0))
        try:
            kept = self._kept.get(asked) if start else None
            place, page = kept or await self._get(asked)
        except RefusedError as error:
            return Result(Status.REFUSED, str(error))
        except TimeoutError:
            return Result(Status.TIMED_OUT, f"{asked[:200]} took too long")
        except (BadUrlError, FetchError, NotTextError) as error:
            return Result(Status.FAILED, str(error))
        return shown_part(page, place, start)

    async def _get(self, asked: str) -> tuple[str, Page]:
        fetched = await self._fetcher.get(asked)
        page = await page_text(fetched.body, fetched.content_type, fetched.url)
        if fetched.status >= 400:
            raise FetchError(f"{fetched.url} answers with status {fetched.status}")
        self._kept[asked] = fetched.url, page
        while len(self._kept) > _KEPT_PAGES:
            self._kept.popitem(last=False)
        return fetched.url, page


def shown_part(page: Page, place: str, start: int, notes: Iterable[str] = ()) -> Result:
    """The part of a page from `start` on, marked as foreign, with the page as its source.

    `notes` are on its loading; they are marked as well, since a page can choose their words.
    """
    if start and start >= len(page.text):
        return Result(Status.FAILED, f"{place} has {len(page.text)} characters of text")
    part = first_bytes(page.text[start : start + PART_BYTES], PART_BYTES)
    end = start + len(part)
    lines = [f"URL: {place}"]
    if page.title:
        lines.append(f"Title: {page.title[:200]}")
    if start or end < len(page.text):
        lines.append(f"Characters {start} to {end} of {len(page.text)}")
    if not page.text:
        lines.append("The page has no text; scripts may make it.")
    lines += notes
    text = marked("\n".join([*lines, "", part]).rstrip(), "the web")
    if end < len(page.text):
        text += f"\nThe page goes on: call again with start={end}."
    elif page.cut:
        text += "\nThe page is longer; the rest was left out."
    return Result(Status.OK, text, (Source.of(place, page.text[start:end]),))


def first_bytes(text: str, num_bytes: int) -> str:
    """As many whole characters as fit into these bytes of UTF-8."""
    return text.encode("utf-8", "replace")[:num_bytes].decode("utf-8", "ignore")
