"""How is a value changed in a YAML file of plain settings, of which each begins its line?

Python has no YAML parser of its own, and none is needed for the files of one client: a key at the
beginning of a line, and what belongs to it on that line and on indented ones. Whatever else a file
has at the beginning of a line is not guessed at; the file is left alone.
"""

import json
import re
from typing import Any

from expertmesh.connect.formats.format import Path, UnmergeableError, newline_of

_KEY = re.compile(r"""("[^"\\]+"|'[^']+'|[A-Za-z0-9_.-]+)[ \t]*:(?=[ \t\r\n]|\Z)""")
_LINE = re.compile(r"[^\n]*(?:\n|\Z)")
_NO_SCALAR = ("|", ">", "&", "*", "!", "[", "{", "-")


class YamlText:
    """A mapping whose keys begin their lines. Paths have one key."""

    def parse(self, text: str) -> dict[str, Any]:
        """Every value as it is written, comments included."""
        return {key: text[start:end].strip() for key, (_, start, end) in _entries(text).items()}

    def written(self, value: Any) -> str:
        """Of texts, numbers and truth values: what JSON has is YAML, too."""
        return json.dumps(value, ensure_ascii=False)

    def same(self, one: str, other: str) -> bool:
        return _scalar(one) == _scalar(other)

    def get(self, text: str, path: Path) -> str | None:
        (key,) = path
        entry = _entries(text).get(key)
        return text[entry[1] : entry[2]].strip() if entry else None

    def put(self, text: str, path: Path, written: str) -> str:
        (key,) = path
        newline = newline_of(text)
        entry = _entries(text).get(key)
        if entry:
            _, start, end = entry
            rest = newline if text[start:end].endswith("\n") else ""
            return text[:start] + " " + written + rest + text[end:]
        if text and not text.endswith("\n"):
            text += newline
        return f"{text}{key}: {written}{newline}"

    def drop(self, text: str, path: Path) -> str:
        start, _, end = _entries(text)[path[0]]
        return text[:start] + text[end:]


def _entries(text: str) -> dict[str, tuple[int, int, int]]:
    """Key -> where its line, its value and what follows begin. Raises UnmergeableError."""
    found: dict[str, tuple[int, int, int]] = {}
    key, at, number = "", 0, 0
    while at < len(text):
        line = _LINE.match(text, at)
        assert line is not None
        number += 1
        begins = _KEY.match(text, at)
        if begins:
            key = begins[1].strip("\"'")
            if key in found:
                raise UnmergeableError(f"it has {key!r} twice")
            found[key] = (at, begins.end(), line.end())
        elif _continues(line[0]):
            if not key:
                raise UnmergeableError(f"line {number} belongs to no setting")
            start, value, _ = found[key]
            found[key] = (start, value, line.end())
        elif line[0].strip() and line[0].lstrip()[0] != "#" and (found or line[0].strip() != "---"):
            raise UnmergeableError(f"line {number} does not begin with a setting's name")
        at = line.end()
    for key, (_, start, end) in found.items():
        if not _is_whole(text[start:end].strip()):
            raise UnmergeableError(f"the value of {key!r} does not end where it seems to")
    return found


def _continues(line: str) -> bool:
    """Whether it belongs to the setting above: indented, or an item of its list."""
    words = line.strip()
    if not words or words.startswith("#"):
        return False
    return line[0] in " \t" or words == "-" or line.startswith("- ")


def _is_whole(value: str) -> bool:
    """Whether brackets and quotes that a value begins with are closed in it."""
    if value[:1] in ("{", "["):
        return value.count("{") == value.count("}") and value.count("[") == value.count("]")
    return (
        value[:1] not in ("'", '"') or value.count(value[0]) % 2 == value.count(f"\\{value[0]}") % 2
    )


def _scalar(written: str) -> Any:
    """A value of one line; others are compared as they stand."""
    if written.startswith('"'):
        try:
            return json.loads(written)
        except ValueError:
            return (written,)
    if written.startswith("'") and written.endswith("'") and len(written) > 1:
        return written[1:-1].replace("''", "'")
    if not written or "\n" in written or " #" in written or written.startswith(_NO_SCALAR):
        return (written,)
    if written in ("true", "false") or re.fullmatch(r"-?\d+(\.\d+)?", written):
        return json.loads(written) if not re.fullmatch(r"-?0\d+.*", written) else written
    return written
