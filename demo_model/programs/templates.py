"""Which functions are the toy programs made of?

`template_lists/*.txt`: under `[name]` the names the function may have (`f:`), what it does
(`doc:`), kinds of argument (`in:`, see values.py), and the code with `$` before each name that
varies. Whole templates are held out by a hash of their name, about one in eight.
"""

import re
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("template_lists")
HELD_OUT_ONE_IN = 8
SLOT = re.compile(r"\$([a-z]+)")

POOLS: dict[str, tuple[str, ...]] = {
    "xs": (
        "values",
        "numbers",
        "items",
        "data",
        "nums",
        "entries",
        "scores",
        "amounts",
        "readings",
    ),
    "ys": ("others", "second", "right", "more", "extra", "weights"),
    "x": ("value", "number", "item", "entry", "x", "current", "element"),
    "n": ("n", "limit", "size", "number", "bound", "amount", "y", "level"),
    "m": ("middle", "mid", "start", "width", "cut", "m"),
    "i": ("i", "index", "position", "place", "k"),
    "j": ("j", "other", "inner", "at"),
    "r": ("result", "total", "out", "answer", "acc", "found", "output", "so_far"),
    "v": ("v", "val", "one", "each", "candidate", "score"),
    "s": ("text", "string", "s", "line", "name", "title"),
    "c": ("letter", "char", "c", "sign", "symbol"),
    "w": ("word", "token", "part", "w", "piece"),
    "ws": ("words", "tokens", "parts", "names", "pieces"),
    "d": ("table", "counts", "mapping", "record", "stock", "prices"),
    "e": ("update", "addition", "second_table", "newer"),
    "k": ("key", "field", "label", "k"),
    "lo": ("low", "lower", "a", "first", "least"),
    "hi": ("high", "upper", "b", "last", "most"),
}
"""Slot -> the names that it may get."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """One function with slots for its names."""

    name: str
    functions: tuple[str, ...]
    doc: str
    arguments: tuple[str, ...]
    lines: tuple[str, ...]

    @property
    def held_out(self) -> bool:
        return zlib.crc32(f"template|{self.name}".encode()) % HELD_OUT_ONE_IN == 0

    @property
    def slots(self) -> tuple[str, ...]:
        found = SLOT.findall("\n".join(self.lines))
        return tuple(dict.fromkeys(slot for slot in found if slot != "f"))


@cache
def load() -> tuple[Template, ...]:
    """All templates, by file and place in it."""
    found = []
    for file in sorted(FOLDER.glob("*.txt")):
        for block in file.read_text(encoding="utf-8").split("\n\n"):
            found.append(_parse(block.strip("\n").split("\n")))
    return tuple(found)


def _parse(lines: list[str]) -> Template:
    head = dict(line.split(": ", 1) for line in lines[1:4])
    return Template(
        name=lines[0].strip("[]"),
        functions=tuple(head["f"].split()),
        doc=head["doc"],
        arguments=tuple(head["in"].split()),
        lines=tuple(lines[4:]),
    )


@cache
def trained() -> tuple[Template, ...]:
    return tuple(template for template in load() if not template.held_out)


@cache
def held_out() -> tuple[Template, ...]:
    return tuple(template for template in load() if template.held_out)


def fill(text: str, names: dict[str, str]) -> str:
    """The text with its slots replaced."""
    return SLOT.sub(lambda slot: names[slot[1]], text)
