"""How do tests write down what a model emits, marker tokens and quoted tags alike?

A think or wrapper tag in the text is its token; after `QUOTED` it is spelled with ordinary tokens.
"""

import re
from collections.abc import Iterable, Iterator

from moe_model.chat.events import ParserEvent, coalesce
from moe_model.families.minimax_m2.parser import OutputParser
from moe_model.families.minimax_m2.tags import MARKERS

QUOTED = "\x00"
_TAG = "|".join(map(re.escape, sorted(MARKERS)))
_UNIT = re.compile(f"{QUOTED}(?P<quoted>{_TAG})|(?P<token>{_TAG})|(?P<text>.)", re.DOTALL)


def quoted(text: str) -> str:
    """The text with each of its think and wrapper tags spelled with ordinary tokens."""
    return re.sub(f"({_TAG})", rf"{QUOTED}\1", text)


def units_of(text: str) -> list[tuple[str, bool]]:
    """Characters and tokens, with whether each is a token."""
    units: list[tuple[str, bool]] = []
    for match in _UNIT.finditer(text):
        if match["token"]:
            units.append((match["token"], True))
        else:
            units += [(character, False) for character in match["quoted"] or match["text"]]
    return units


def feed(parser: OutputParser, text: str, *, cuts: Iterable[int] = ()) -> Iterator[ParserEvent]:
    """Events of the text, given in pieces that end at tokens and before the units at `cuts`."""
    piece = ""
    ends = set(cuts)
    for index, (unit, is_token) in enumerate(units_of(text)):
        if piece and (is_token or index in ends):
            yield from parser.feed(piece)
            piece = ""
        if is_token:
            yield from parser.feed_marker(unit)
        else:
            piece += unit
    yield from parser.feed(piece)


def events_of(
    parser: OutputParser, text: str, *, cuts: Iterable[int] = (), is_cut: bool = False
) -> list[ParserEvent]:
    """Events of the whole output, neighbours joined."""
    return coalesce([*feed(parser, text, cuts=cuts), *parser.finish(is_cut=is_cut)])
