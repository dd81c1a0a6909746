"""By which words is a text found, in languages with spaces and without?

Chinese, Japanese and Korean are written in pairs of neighbouring characters: most of their words
have two, which is too short for an index of three characters.
"""

import re

MAX_TERMS = 32
MAX_QUERY_CHARS = 1000
_EAST_ASIAN = (
    "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_RUN = re.compile(f"[{_EAST_ASIAN}]+")
_WORD = re.compile(rf"[{_EAST_ASIAN}]+|[^\W_{_EAST_ASIAN}]+")


def in_pairs(text: str) -> str:
    """The text with each run of such characters as its pairs, with spaces between them."""
    return _RUN.sub(lambda run: f" {' '.join(_pairs(run[0]))} ", text)


def word_query(query: str) -> str:
    """For an index of `in_pairs`: any of the words, in FTS5's syntax. "" if there are none."""
    terms: dict[str, None] = {}
    for word in _WORD.findall(query[:MAX_QUERY_CHARS]):
        terms |= dict.fromkeys(_pairs(word) if _RUN.fullmatch(word) else [word.lower()])
    return _any_of(list(terms))


def substring_query(query: str) -> str:
    """For an index of trigrams: any of the words of three characters and more."""
    words = dict.fromkeys(word.lower() for word in _WORD.findall(query[:MAX_QUERY_CHARS]))
    return _any_of([word for word in words if len(word) >= 3])


def _pairs(run: str) -> list[str]:
    """One character alone is its own pair."""
    return [run[at : at + 2] for at in range(max(len(run) - 1, 1))]


def _any_of(terms: list[str]) -> str:
    """Quoted, so that no word is an operator; `_WORD` finds no quotes."""
    return " OR ".join(f'"{term}"' for term in terms[:MAX_TERMS])
