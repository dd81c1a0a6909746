"""Find pages of the web."""

from typing import Any

from expertmesh.agent.tools.tool import Effect, Result, Source, Status, search_schema
from expertmesh.agent.web.marking import marked
from expertmesh.agent.web.search_backends import Hit, SearchBackend, SearchError

USUAL_HITS = 5
MAX_HITS = 10
_MAX_BYTES = 7 << 10
"""So that with its marks the list fits into MAX_BYTES of clip.py."""


class WebSearch:
    """Asks one search engine."""

    name = "web_search"
    description = (
        "Search the web. Gives titles, addresses and excerpts; read a page with fetch before you "
        "rely on it."
    )
    parameters = search_schema("pages", usual=USUAL_HITS, most=MAX_HITS)
    effect = Effect.WEB

    def __init__(self, backend: SearchBackend):
        self._backend = backend

    async def call(self, arguments: dict[str, Any]) -> Result:
        query = arguments["query"]
        try:
            hits = await self._backend.search(query, int(arguments.get("limit", USUAL_HITS)))
        except SearchError as error:
            return Result(Status.FAILED, str(error))
        if not hits:
            return Result(Status.OK, f"Nothing was found for {query!r}; try other words.")
        shown: list[Hit] = []
        size_bytes = 0
        for hit in hits:
            size_bytes += len(_entry(hit).encode()) + 2
            if shown and size_bytes > _MAX_BYTES:
                break
            shown.append(hit)
        text = marked("\n\n".join(map(_entry, shown)), "the web")
        sources = tuple(Source.of(hit.url, f"{hit.title}\n{hit.excerpt}") for hit in shown)
        return Result(Status.OK, text, sources)


def _entry(hit: Hit) -> str:
    return "\n".join(line for line in (hit.title, hit.url, hit.excerpt) if line)
