"""Which arguments are the toy functions called with? Small ones, so that results are short."""

import random
from collections.abc import Callable
from typing import Any

_WORDS = """
apple bank cat deer echo fox gold hat ice jam kite lamp moon nest oak pear quilt rose sun
tree up vase wind yard zoo able bird cold dark east fish good home iron just king late
mild near open pale quiet rain salt tall use very warm young area blue clay door edge
"""
WORDS = tuple(_WORDS.split())
NAMES = ("Anna", "Ben", "Carla", "David", "Emma", "Li", "Wei", "Mina", "Otto", "Zoe", "Ada", "Tom")
PALINDROMES = ("level", "noon", "Anna", "radar", "Otto", "stats", "kayak", "Hannah")
MAILS = ("example.com", "test.org", "mail.net", "site.cn")


def _ints(rng: random.Random, least: int, most: int, low: int = 0, high: int = 12) -> list[int]:
    return [rng.randint(low, high) for _ in range(rng.randint(least, most))]


def _table(rng: random.Random, *, distinct: bool = False) -> dict[str, int]:
    keys = rng.sample(WORDS[:8], rng.randint(1, 3))
    if distinct:
        return dict(zip(keys, rng.sample(range(1, 10), len(keys)), strict=True))
    return {key: rng.randint(1, 9) for key in keys}


def _square(rng: random.Random) -> list[list[int]]:
    size = rng.choice((1, 2, 2))
    return [[rng.randint(0, 9) for _ in range(size)] for _ in range(size)]


def _runs(rng: random.Random) -> str:
    return "".join(rng.choice("abc") * rng.randint(1, 3) for _ in range(rng.randint(0, 2)))


def _words(rng: random.Random) -> list[str]:
    return [rng.choice(WORDS) for _ in range(rng.randint(0, 3))]


def _title(rng: random.Random) -> str:
    return " ".join(rng.choice(WORDS).capitalize() for _ in range(rng.randint(1, 3)))


def _maybe_digits(rng: random.Random) -> str:
    return rng.choice(("", str(rng.randint(0, 999)), f"{rng.randint(1, 99)}{rng.choice('abx-. ')}"))


def _password(rng: random.Random) -> str:
    word = rng.choice(WORDS)
    return rng.choice((word, f"{word}{rng.randint(1, 99)}", f"{word} {rng.randint(10, 999)}"))


def _near_equal(rng: random.Random) -> list[int]:
    value = rng.randint(0, 9)
    return [value] * rng.randint(0, 3) + ([rng.randint(0, 9)] if rng.random() < 0.5 else [])


KINDS: dict[str, Callable[[random.Random], Any]] = {
    "int": lambda rng: rng.randint(-9, 20),
    "nearzero": lambda rng: rng.randint(-2, 2),
    "digit": lambda rng: rng.randint(0, 9),
    "digit1": lambda rng: rng.randint(1, 5),
    "tiny": lambda rng: rng.randint(0, 5),
    "small": lambda rng: rng.randint(0, 9),
    "small1": lambda rng: rng.randint(1, 9),
    "positive": lambda rng: rng.randint(1, 24),
    "natural": lambda rng: rng.choice((rng.randint(0, 9), rng.randint(10, 999))),
    "low": lambda rng: rng.randint(0, 4),
    "high": lambda rng: rng.randint(5, 10),
    "even": lambda rng: 2 * rng.randint(0, 10),
    "fives": lambda rng: 5 * rng.randint(-2, 20),
    "year": lambda rng: rng.choice((rng.randint(1890, 2030), 1900, 2000, 2024, 2100, 2023)),
    "fifties": lambda rng: rng.choice((0, 10, 20, 50, 100)),
    "hundreds": lambda rng: 100 * rng.randint(1, 9),
    "tens": lambda rng: 10 * rng.randint(0, 5),
    "sixty": lambda rng: rng.randint(0, 59),
    "score": lambda rng: rng.choice((rng.randint(40, 100), 90, 89, 70, 69)),
    "index3": lambda rng: rng.randint(0, 2),
    "ints": lambda rng: _ints(rng, 0, 4),
    "ints1": lambda rng: _ints(rng, 1, 4),
    "evens": lambda rng: [2 * value for value in _ints(rng, 0, 3)],
    "signed": lambda rng: _ints(rng, 0, 4, -9, 9),
    "digits": lambda rng: _ints(rng, 0, 4, 0, 4),
    "distinct": lambda rng: rng.sample(range(1, 20), rng.randint(2, 4)),
    "odd_count": lambda rng: rng.sample(range(1, 20), rng.choice((1, 3))),
    "three": lambda rng: _ints(rng, 2, 2),
    "sorted": lambda rng: sorted(rng.sample(range(10), rng.randint(1, 4))),
    "rows": lambda rng: [_ints(rng, 3, 3, 0, 9) for _ in range(rng.randint(1, 2))],
    "square": _square,
    "near_equal": _near_equal,
    "word": lambda rng: rng.choice(WORDS),
    "prefix": lambda rng: rng.choice(WORDS)[: rng.randint(1, 3)],
    "letter": lambda rng: rng.choice("aeiolr"),
    "palindrome": lambda rng: rng.choice((*PALINDROMES, *WORDS[:8])),
    "sentence": lambda rng: " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 4))),
    "title": _title,
    "Name": lambda rng: rng.choice(NAMES),
    "words": _words,
    "repeated": lambda rng: [rng.choice(WORDS[:3]) for _ in range(rng.randint(0, 4))],
    "maybe_digits": _maybe_digits,
    "pair": lambda rng: f"{rng.choice(WORDS)}{rng.choice(('=', ' = '))}{rng.randint(0, 99)}",
    "password": _password,
    "mail": lambda rng: f"{rng.choice(WORDS)}@{rng.choice(MAILS)}",
    "table": _table,
    "distinct_table": lambda rng: _table(rng, distinct=True),
    "key": lambda rng: rng.choice(WORDS[:8]),
    "words_of_table": lambda rng: rng.sample(WORDS[:8], rng.randint(1, 3)),
    "orders": lambda rng: [_ints(rng, 2, 2, 1, 9) for _ in range(rng.randint(0, 2))],
    "brackets": lambda rng: "".join(rng.choice("()") for _ in range(rng.choice((0, 2, 2, 4)))),
    "runs": _runs,
}  # fmt: skip
"""Kind of argument -> how one is drawn."""


def draw(rng: random.Random, kinds: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(KINDS[kind](rng) for kind in kinds)
