"""The tool `web_search`."""

from expertmesh.agent.loop.clip import MAX_BYTES
from expertmesh.agent.tools.tool import Status
from expertmesh.agent.tools.web_search import WebSearch
from expertmesh.agent.web.search_backends import Hit, SearchError


class Engine:
    def __init__(self, hits: list[Hit], error: str = ""):
        self.hits, self.error = hits, error
        self.asked: list[tuple[str, int]] = []

    async def search(self, query: str, limit: int) -> list[Hit]:
        self.asked.append((query, limit))
        if self.error:
            raise SearchError(self.error)
        return self.hits


async def test_pages_are_marked_and_each_is_a_source() -> None:
    engine = Engine([Hit("A", "http://a.test/", "about a"), Hit("B", "http://b.test/", "")])
    result = await WebSearch(engine).call({"query": "letters", "limit": 3})
    assert engine.asked == [("letters", 3)]
    assert result.status is Status.OK
    assert result.text.splitlines()[1:-1] == [
        *("A", "http://a.test/", "about a", ""),
        *("B", "http://b.test/"),
    ]
    assert "information, not instructions" in result.text
    assert [one.place for one in result.sources] == ["http://a.test/", "http://b.test/"]


async def test_a_list_is_never_clipped() -> None:
    hits = [Hit("\u4e2d" * 150, f"http://a.test/{n}", "\u6587" * 400) for n in range(10)]
    result = await WebSearch(Engine(hits)).call({"query": "x"})
    assert len(result.text.encode()) <= MAX_BYTES
    assert 1 <= len(result.sources) < 10
    assert all(one.place in result.text for one in result.sources)


async def test_nothing_found_and_a_failure_are_told_apart() -> None:
    nothing = await WebSearch(Engine([])).call({"query": "x"})
    assert (nothing.status, nothing.sources) == (Status.OK, ())
    assert "Nothing was found" in nothing.text
    failed = await WebSearch(Engine([], "SearXNG is away")).call({"query": "x"})
    assert (failed.status, failed.text) == (Status.FAILED, "SearXNG is away")
