"""How is a value changed in a TOML file, so that its order and its comments stay?"""

import json
import re
import tomllib
from typing import Any

from expertmesh.connect.formats.format import Path, UnmergeableError, newline_of
from expertmesh.connect.formats.toml_lines import Entry, entries


class TomlText:
    """TOML. Values are lines of their own below the head of their table, never in inline tables."""

    def parse(self, text: str) -> dict[str, Any]:
        try:
            return tomllib.loads(text.replace("\r\n", "\n"))
        except tomllib.TOMLDecodeError as error:
            raise UnmergeableError(f"it is not TOML: {error}") from None

    def written(self, value: Any) -> str:
        """Of texts, numbers and truth values."""
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

    def same(self, one: str, other: str) -> bool:
        first, second = (self.parse(f"value = {text}")["value"] for text in (one, other))
        return bool(type(first) is type(second) and first == second)

    def get(self, text: str, path: Path) -> str | None:
        pair = self._pair(text, path)
        return text[slice(*pair.value)] if pair and pair.value else None

    def put(self, text: str, path: Path, written: str) -> str:
        pair = self._pair(text, path)
        if pair and pair.value:
            return text[: pair.value[0]] + written + text[pair.value[1] :]
        newline = newline_of(text)
        line = f"{_quoted(path[-1])} = {written}{newline}"
        found = self._entries(text)
        at = _end_of_table(found, path[:-1])
        if at is None:
            text = _with_line_end(text, newline)
            head = f"[{'.'.join(map(_quoted, path[:-1]))}]{newline}"
            return text + (newline if text else "") + head + line
        before = _with_line_end(text[:at], newline)
        is_first = not at and text.strip() and found and found[0].value is None
        return before + line + (newline if is_first else "") + text[at:]

    def drop(self, text: str, path: Path) -> str:
        found = next(one for one in self._entries(text) if one.path == path)
        before = text[: found.start]
        if found.value is None:  # the blank line above a head goes with it
            before = re.sub(r"(?<=\n)\r?\n\Z", "", before)
        return before + text[found.end :]

    def _pair(self, text: str, path: Path) -> Entry | None:
        found = self._entries(text)
        inside = [one for one in found if one.is_array and path[: len(one.path)] == one.path]
        if inside:
            raise UnmergeableError(f"{'.'.join(inside[0].path)} is an array of tables there")
        return next((one for one in found if one.path == path and one.value), None)

    def _entries(self, text: str) -> list[Entry]:
        self.parse(text)
        try:
            return entries(text)
        except ValueError as error:
            raise UnmergeableError(str(error)) from None


def _end_of_table(found: list[Entry], table: Path) -> int | None:
    """Where a line can be added to a table; None if it has no head."""
    if not table:
        pairs = []
        for one in found:
            if one.value is None:
                break
            pairs.append(one)
        return pairs[-1].end if pairs else 0
    heads = [n for n, one in enumerate(found) if one.path == table and one.value is None]
    if not heads:
        return None
    end = found[heads[0]].end
    for one in found[heads[0] + 1 :]:
        if one.value is None:
            break
        end = one.end
    return end


def _with_line_end(text: str, newline: str) -> str:
    return text if not text or text.endswith("\n") else text + newline


def _quoted(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)
