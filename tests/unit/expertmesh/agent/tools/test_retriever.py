"""The tool `retriever`."""

from pathlib import Path

import pytest

from expertmesh.agent.loop.clip import MAX_BYTES
from expertmesh.agent.retrieval.index import TextIndex
from expertmesh.agent.tools.retriever import Retriever
from expertmesh.agent.tools.tool import Status


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    root.mkdir()
    (root / "a.md").write_text("About leases.\n")
    return root


def retriever(root: Path, time_s: float = 60.0) -> Retriever:
    return Retriever(root, root.parent / "index.db", time_s)


async def test_passages_come_with_their_places_as_sources(root: Path) -> None:
    result = await retriever(root).call({"query": "lease leases"})
    assert (result.status, result.text) == (Status.OK, "a.md:1-1\nAbout leases.")
    assert [source.place for source in result.sources] == ["a.md:1-1"]


async def test_what_is_new_is_found_at_once(root: Path) -> None:
    tool = retriever(root)
    nothing = await tool.call({"query": "turbine"})
    assert nothing.text == "None of 1 documents has any of these words. Try others."
    (root / "b.md").write_text("turbine")
    (root / "c.bin").write_bytes(b"\0")
    assert "b.md:1-1" in (await tool.call({"query": "turbine"})).text
    assert "1 more are no text" in (await tool.call({"query": "zebra"})).text


async def test_a_list_is_never_clipped(root: Path) -> None:
    for number in range(10):
        (root / f"{number}.md").write_text("\u4e13\u5bb6" * 600)
    result = await retriever(root).call({"query": "\u4e13\u5bb6", "limit": 10})
    assert len(result.text.encode()) <= MAX_BYTES
    assert 1 <= len(result.sources) < 10


async def test_a_folder_that_is_gone_says_so(root: Path) -> None:
    result = await retriever(root / "gone").call({"query": "x"})
    assert (result.status, str(root / "gone") in result.text) == (Status.FAILED, True)


async def test_it_has_a_time_limit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(index: TextIndex) -> None:
        while True:
            index._check_stopped()

    monkeypatch.setattr(TextIndex, "update", endless)
    result = await retriever(root, time_s=0.2).call({"query": "x"})
    assert result.status is Status.TIMED_OUT
