"""Which part of an answer is the code, or the JSON, that was asked for?

Models wrap it in fences, with words before and after it, and sometimes forget one of the fences.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_FENCE = re.compile(r"^ {0,3}(?P<marks>`{3,}|~{3,})[ \t]*(?P<language>[\w+#.-]*)[^\n]*$")
_OPENING = re.compile(r"[\[{]")
_MAX_STARTS = 1000
"""So often is a JSON value looked for in text around it."""


@dataclass(frozen=True)
class Block:
    """A fenced block; `language` is in lower case, "" where none is named."""

    language: str
    text: str
    is_closed: bool


def blocks(text: str) -> list[Block]:
    """The fenced blocks, in their order; the last one may lack its end."""
    found: list[Block] = []
    marks, language = "", ""
    lines: list[str] = []
    for line in text.splitlines():
        fence = _FENCE.match(line)
        if not marks:
            if fence is not None:
                marks, language, lines = fence["marks"], fence["language"].lower(), []
        elif fence is not None and not fence["language"] and fence["marks"].startswith(marks):
            found.append(Block(language, "".join(lines), True))
            marks = ""
        else:
            lines.append(line + "\n")
    if marks:
        found.append(Block(language, "".join(lines), False))
    return found


def code_of(text: str, languages: tuple[str, ...] = ("python", "py", "python3")) -> str | None:
    """The longest block of one of these languages, else of none; None where there is no block."""
    found = blocks(text)
    for wanted in (languages, ("",)):
        fitting = [one.text for one in found if one.language in wanted and one.text.strip()]
        if fitting:
            return max(fitting, key=len)
    return None


def json_of(text: str) -> Any:
    """The JSON value of an answer: all of it, a fenced block, or the longest object or array in it.

    Raises ValueError if there is none.
    """
    fenced = [one.text for one in blocks(text) if one.language in ("json", "")]
    for candidate in (text, *fenced):
        try:
            return _decoded(candidate.strip())
        except (ValueError, RecursionError):
            continue
    found = max(_values_in(text), key=lambda one: one[0], default=None)
    if found is None:
        raise ValueError("there is no JSON in the answer")
    return found[1]


def _values_in(text: str) -> Iterator[tuple[int, Any]]:
    """(length, value) of each object and array that stands in the text, the outermost only."""
    place = 0
    for _ in range(_MAX_STARTS):
        start = _OPENING.search(text, place)
        if start is None:
            return
        try:
            value, place = _DECODER.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            place = start.end()
        else:
            yield place - start.start(), value


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _decoded(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse)
