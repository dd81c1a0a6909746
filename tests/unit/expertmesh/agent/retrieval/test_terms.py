"""By which words texts are found."""

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.agent.retrieval.terms import MAX_TERMS, in_pairs, substring_query, word_query


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("plain words", "plain words"),
        ("\u4e13\u5bb6\u6c60", " \u4e13\u5bb6 \u5bb6\u6c60 "),
        ("\u6c60", " \u6c60 "),
        ("KV\u7f13\u5b58 x", "KV \u7f13\u5b58  x"),
        ("\u30d7\u30ed\u30bb", " \u30d7\u30ed \u30ed\u30bb "),
    ],
)
def test_text_without_spaces_is_written_in_pairs(text: str, pairs: str) -> None:
    assert in_pairs(text) == pairs


@pytest.mark.parametrize(
    ("query", "words", "substrings"),
    [
        ("Two words", '"two" OR "words"', '"two" OR "words"'),
        ("a_b NEAR(x)", '"a" OR "b" OR "near" OR "x"', '"near"'),
        ("\u4e13\u5bb6\u6c60", '"\u4e13\u5bb6" OR "\u5bb6\u6c60"', '"\u4e13\u5bb6\u6c60"'),
        ('"; DROP TABLE', '"drop" OR "table"', '"drop" OR "table"'),
        ("same Same", '"same"', '"same"'),
        ("?! -", "", ""),
    ],
)
def test_a_query_asks_for_any_of_its_words(query: str, words: str, substrings: str) -> None:
    assert (word_query(query), substring_query(query)) == (words, substrings)


def test_a_query_has_a_largest_size() -> None:
    assert word_query(" ".join(f"w{n}" for n in range(1000))).count('"') == 2 * MAX_TERMS


@given(st.text())
def test_no_text_breaks_the_syntax_of_the_index(query: str) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE t USING fts5(body)")
    connection.execute("INSERT INTO t VALUES (?)", (in_pairs(query.replace("\0", "")),))
    for match in filter(None, (word_query(query), substring_query(query))):
        connection.execute("SELECT * FROM t WHERE t MATCH ?", (match,)).fetchall()
