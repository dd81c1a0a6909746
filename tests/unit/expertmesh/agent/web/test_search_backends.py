"""What search engines are asked, and what is made of their answers."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.agent.web.search_backends import (
    MAX_ANSWER_BYTES,
    Brave,
    Hit,
    SearchBackend,
    SearchError,
    Searxng,
    Tavily,
    _hits,
    search_backend,
)
from tests.support.expertmesh.local_site import Site, answer, local_site, redirect

HITS = [Hit("A & B", "http://a.test/", "an excerpt"), Hit("C", "http://c.test/x?y", "")]


def as_json(value: Any, status: int = 200) -> bytes:
    return answer(json.dumps(value), status, "application/json")


def results(excerpt: str) -> list[dict[str, Any]]:
    return [
        {
            "title": "A &amp; <b>B</b>",
            "url": "http://a.test",
            excerpt: " an\n<strong>excerpt</strong>",
        },
        {"title": "again", "url": "http://a.test/", excerpt: ""},
        {"title": "inside", "url": "file:///etc/passwd", excerpt: ""},
        {"title": "C", "url": "http://c.test/x?y#z"},
        {"url": 5},
        "no entry",
        {"title": "beyond the limit", "url": "http://d.test/"},
    ]


Make = Callable[[Site], SearchBackend]
BACKENDS: dict[str, tuple[Make, str, Any]] = {
    "searxng": (lambda site: Searxng(site.url()), "/search", {"results": results("content")}),
    "brave": (
        lambda site: Brave("key-b", site.url("")),
        "/res/v1/web/search",
        {"web": {"results": results("description")}},
    ),
    "tavily": (
        lambda site: Tavily("key-t", site.url("")),
        "/search",
        {"results": results("content")},
    ),
}


@pytest.mark.parametrize("name", BACKENDS)
async def test_pages_come_plain_and_once_and_no_more_than_asked(name: str) -> None:
    make, path, found = BACKENDS[name]
    async with local_site({path: as_json(found)}) as site:
        assert await make(site).search("two words", 2) == HITS


async def test_each_engine_is_asked_in_its_way() -> None:
    heads = {}
    for name, (make, path, found) in BACKENDS.items():
        async with local_site({path: as_json(found)}) as site:
            await make(site).search("two w\u00f6rds", 2)
        heads[name] = site.heads[0].lower()
    assert "get /search?q=two+w%c3%b6rds&format=json http" in heads["searxng"]
    assert "get /res/v1/web/search?q=two+w%c3%b6rds&count=2 http" in heads["brave"]
    assert "x-subscription-token: key-b" in heads["brave"]
    assert "post /search http" in heads["tavily"]
    assert "authorization: bearer key-t" in heads["tavily"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (as_json({}, 403), "status 403: its settings must list json"),
        (as_json({}, 429), "too many searches"),
        (as_json({}, 500), "status 500"),
        (as_json({"results": [], "unresponsive_engines": [["a", "timeout"]]}), "'a', 'timeout'"),
        (answer("<html>"), "not answer in JSON"),
        (answer("[" * 100_000), "not answer in JSON"),
        (answer(b"1" * (MAX_ANSWER_BYTES + 1)), "more than 2 MB"),
        (b"", "cannot be asked"),
    ],
)
async def test_an_engine_that_fails_says_how(said: bytes, words: str) -> None:
    async with local_site({"/search": said}) as site:
        with pytest.raises(SearchError, match=words):
            await Searxng(site.url()).search("x", 2)


async def test_a_key_goes_to_no_other_host() -> None:
    async with local_site({}) as other:
        async with local_site({"/search": redirect(other.url("/search"), 307)}) as site:
            with pytest.raises(SearchError, match="status 307"):
                await Tavily("key", site.url("")).search("x", 2)
    assert other.heads == []


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["results", "url"]), inner),
        max_leaves=10,
    )
)
def test_any_json_is_read(value: Any) -> None:
    assert isinstance(_hits(value, ("results",), "content", 3), list)


@pytest.mark.parametrize(
    ("text", "environment", "kind"),
    [
        ("searxng=http://127.0.0.1:8888/", {}, Searxng),
        ("brave", {"BRAVE_API_KEY": "k"}, Brave),
        ("tavily", {"TAVILY_API_KEY": "k"}, Tavily),
    ],
)
def test_the_flag_names_an_engine(text: str, environment: dict[str, str], kind: type) -> None:
    assert isinstance(search_backend(text, environment), kind)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("searxng", "--search searxng=URL"),
        ("searxng=nowhere", "--search searxng=URL"),
        ("brave", "set BRAVE_API_KEY"),
        ("tavily", "set TAVILY_API_KEY"),
        ("google", "write searxng=URL, brave or tavily"),
        ("brave=x", "write searxng=URL, brave or tavily"),
        ("", "write searxng=URL, brave or tavily"),
    ],
)
def test_a_bad_flag_says_what_to_write(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        search_backend(text, {"BRAVE_API_KEY": " "})
