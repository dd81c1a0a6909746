"""Which search engines can be asked, and what do they find?

SearXNG is one's own server; Brave and Tavily are services that want a key, from the environment.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import unescape
from typing import Any, Protocol

import httpx

from expertmesh.agent.web.marking import visible
from expertmesh.agent.web.urls import BadUrlError, parse_url

TIME_S = 15.0
MAX_ANSWER_BYTES = 2 << 20
_MAX_TITLE_CHARS = 150
_MAX_EXCERPT_CHARS = 400
_TAG = re.compile(r"<[^<>]{1,200}>")


class SearchError(Exception):
    """A search that failed; the text is for the model and the user."""


@dataclass(frozen=True)
class Hit:
    """One page that was found."""

    title: str
    url: str
    excerpt: str


class SearchBackend(Protocol):
    """A search engine."""

    async def search(self, query: str, limit: int) -> list[Hit]:
        """At most `limit` pages, best first. Raises SearchError."""
        ...


class Searxng:
    """A SearXNG server, whose settings must allow the format json."""

    def __init__(self, url: str):
        self._url = url.rstrip("/")

    async def search(self, query: str, limit: int) -> list[Hit]:
        answer = await _ask(
            "GET", f"{self._url}/search", params={"q": query, "format": "json"}, name="SearXNG"
        )
        hits = _hits(answer, ("results",), "content", limit)
        silent = answer.get("unresponsive_engines") if isinstance(answer, dict) else None
        if silent and not hits:
            raise SearchError(
                f"SearXNG found nothing, and these did not answer: {str(silent)[:200]}"
            )
        return hits


class Brave:
    """Brave's search API."""

    def __init__(self, key: str, url: str = "https://api.search.brave.com"):
        self._key = key
        self._url = url

    async def search(self, query: str, limit: int) -> list[Hit]:
        answer = await _ask(
            "GET",
            f"{self._url}/res/v1/web/search",
            params={"q": query[:400], "count": limit},
            headers={"X-Subscription-Token": self._key},
            name="Brave",
        )
        return _hits(answer, ("web", "results"), "description", limit)


class Tavily:
    """Tavily's search API."""

    def __init__(self, key: str, url: str = "https://api.tavily.com"):
        self._key = key
        self._url = url

    async def search(self, query: str, limit: int) -> list[Hit]:
        answer = await _ask(
            "POST",
            f"{self._url}/search",
            json={"query": query[:400], "max_results": limit},
            headers={"Authorization": f"Bearer {self._key}"},
            name="Tavily",
        )
        return _hits(answer, ("results",), "content", limit)


KEY_VARIABLES = {"brave": "BRAVE_API_KEY", "tavily": "TAVILY_API_KEY"}


def search_backend(text: str, environment: Mapping[str, str]) -> SearchBackend:
    """Of the value of --search. Raises ValueError that names the flag."""
    name, _, url = text.partition("=")
    if name == "searxng":
        try:
            return Searxng(str(parse_url(url)))
        except BadUrlError as error:
            raise ValueError(f"--search searxng=URL: {error}") from None
    if name not in KEY_VARIABLES or url:
        raise ValueError(f"--search {text}: write searxng=URL, brave or tavily")
    key = environment.get(KEY_VARIABLES[name], "").strip()
    if not key:
        raise ValueError(f"--search {name}: its key is missing; set {KEY_VARIABLES[name]}")
    return Brave(key) if name == "brave" else Tavily(key)


async def _ask(method: str, url: str, *, name: str, **request: Any) -> Any:
    """The JSON of an answer. No redirect is followed: the key goes to nobody else."""
    try:
        async with (
            httpx.AsyncClient(timeout=TIME_S, follow_redirects=False) as client,
            client.stream(method, url, **request) as response,
        ):
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_ANSWER_BYTES:
                    raise SearchError(f"{name} answers with more than {MAX_ANSWER_BYTES >> 20} MB")
            if response.status_code != 200:
                raise SearchError(_refusal(name, response.status_code))
        return json.loads(body)
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise SearchError(f"{name} cannot be asked: {reason}") from None
    except (ValueError, RecursionError):
        raise SearchError(f"{name} does not answer in JSON") from None


def _refusal(name: str, status: int) -> str:
    hints = {401: "the key is not valid", 429: "too many searches; wait a little"}
    if name == "SearXNG":
        hints[403] = "its settings must list json under search.formats"
    hint = hints.get(status)
    return f"{name} answers with status {status}" + (f": {hint}" if hint else "")


def _hits(answer: Any, path: tuple[str, ...], excerpt: str, limit: int) -> list[Hit]:
    """What is at the path, without what is no page of the web. Nothing found is no error."""
    for key in path:
        answer = answer.get(key) if isinstance(answer, dict) else None
    found: dict[str, Hit] = {}
    for entry in answer if isinstance(answer, list) else []:
        if not isinstance(entry, dict):
            continue
        try:
            url = str(parse_url(str(entry.get("url"))))
        except BadUrlError:
            continue
        title = _plain(entry.get("title"), _MAX_TITLE_CHARS)
        found.setdefault(
            url, Hit(title or url, url, _plain(entry.get(excerpt), _MAX_EXCERPT_CHARS))
        )
        if len(found) == limit:
            break
    return list(found.values())


def _plain(value: Any, max_chars: int) -> str:
    """Engines mark the words that were searched for with tags."""
    if not isinstance(value, str):
        return ""
    text = " ".join(visible(unescape(_TAG.sub("", value[:10_000]))).split())
    return text if len(text) <= max_chars else text[: max_chars - 3] + "..."
