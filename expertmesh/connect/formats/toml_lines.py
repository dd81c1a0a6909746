"""Where does each entry of a TOML text stand? For texts that tomllib has read: they are TOML."""

import json
import re
from dataclasses import dataclass

from expertmesh.connect.formats.format import Path

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_REST = re.compile(r"[^\n]*\n?")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRINGS = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")' r"|'''.*?'{3,5}(?!')" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'",
    re.DOTALL,
)


@dataclass(frozen=True)
class Entry:
    """A key with its value, or the head of a table; with its line, `text[start:end]`."""

    path: Path
    """From the root, also for keys inside a table."""
    start: int
    end: int
    value: tuple[int, int] | None = None
    """Where the value stands; None for the head of a table."""
    is_array: bool = False
    """Of a head: one of an array of tables."""


def entries(text: str) -> list[Entry]:
    """All of them, in order. Raises ValueError for what is no TOML."""
    found: list[Entry] = []
    table: Path = ()
    at = _end(_BLANK, text, 0)
    while at < len(text):
        line = text.rfind("\n", 0, at) + 1
        if text[at] == "[":
            is_array = text.startswith("[[", at)
            table, at = _key(text, at + 1 + is_array)
            at = _end(_REST, text, at)
            found.append(Entry(table, line, at, None, is_array))
        else:
            key, at = _key(text, at)
            if text[at : at + 1] != "=":
                raise ValueError(f"no value behind {'.'.join(key)}")
            start = _end(_SPACE, text, at + 1)
            end = _value_end(text, start)
            at = _end(_REST, text, end)
            found.append(Entry((*table, *key), line, at, (start, end)))
        at = _end(_BLANK, text, at)
    return found


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def _key(text: str, at: int) -> tuple[Path, int]:
    """A key, dotted or not, and where what follows it begins."""
    parts: list[str] = []
    while True:
        at = _end(_SPACE, text, at)
        quoted = _STRINGS.match(text, at) if text[at : at + 1] in ('"', "'") else None
        found = quoted or _BARE_KEY.match(text, at)
        if found is None:
            raise ValueError("a key is missing")
        parts.append(_unquoted(found[0]) if quoted else found[0])
        at = _end(_SPACE, text, found.end())
        if text[at : at + 1] != ".":
            return tuple(parts), at
        at += 1


def _unquoted(key: str) -> str:
    if key.startswith("'"):
        return key[1:-1]
    wide = re.sub(r"\\U0000([0-9a-fA-F]{4})", r"\\u\1", key)
    return str(json.loads(wide, strict=False))


def _value_end(text: str, at: int) -> int:
    """Where a value ends: at a comma, comment or line end outside strings and brackets."""
    depth, end = 0, at
    while at < len(text):
        string = _STRINGS.match(text, at) if text[at] in "\"'" else None
        if string:
            at = end = string.end()
            continue
        if text[at] == "#":
            if not depth:
                break
            at = _end(re.compile(r"[^\n]*"), text, at)
            continue
        if text[at] == "\n" and not depth:
            break
        depth += (text[at] in "[{") - (text[at] in "]}")
        at += 1
        if not text[at - 1].isspace():
            end = at
    return end
