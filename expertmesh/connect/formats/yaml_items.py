"""How is an item changed in a YAML file that is a list of items with names?

Like the settings of `yaml_text.py`, an item is text between two lines: from its `- name: X` to the
next one's. Paths have one key, the name, and values are mappings of plain values.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from expertmesh.connect.formats.format import Path, UnmergeableError, newline_of

_NAME = re.compile(r"""- +name[ \t]*:[ \t]+("[^"\\\n]+"|'[^'\n]+'|[^\s#"'][^#\n]*)""")


class YamlItems:
    """A list whose items begin with their names."""

    def parse(self, text: str) -> dict[str, Any]:
        """Every item as it is written."""
        return {name: text[start:end].strip() for name, (start, end) in _items(text).items()}

    def written(self, value: Any) -> str:
        """Of a mapping, which has the name first."""
        return "- " + "\n".join(_lines(value)).strip()

    def same(self, one: str, other: str) -> bool:
        return one.replace("\r\n", "\n").strip() == other.replace("\r\n", "\n").strip()

    def get(self, text: str, path: Path) -> str | None:
        place = _items(text).get(path[0])
        return text[slice(*place)].strip() if place else None

    def put(self, text: str, path: Path, written: str) -> str:
        newline = newline_of(text)
        lines = written.replace("\r\n", "\n").replace("\n", newline) + newline
        place = _items(text).get(path[0])
        if place:
            return text[: place[0]] + lines + text[place[1] :]
        return text + (newline if text and not text.endswith("\n") else "") + lines

    def drop(self, text: str, path: Path) -> str:
        start, end = _items(text)[path[0]]
        return text[:start] + text[end:]


def _items(text: str) -> dict[str, tuple[int, int]]:
    """Name -> where an item and what follows it begin; comments belong to what follows them."""
    found: dict[str, tuple[int, int]] = {}
    name, at = "", 0
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        end = at + len(line)
        words = line.strip()
        begins = _NAME.match(line)
        if begins:
            name = begins[1].strip().strip("\"'")
            if name in found:
                raise UnmergeableError(f"it has {name!r} twice")
            found[name] = (at, end)
        elif words and not words.startswith("#") and line[0] == " " and name:
            found[name] = (found[name][0], end)
        elif words and not words.startswith("#") and (found or words != "---"):
            raise UnmergeableError(f"line {number} does not begin an item with `- name:`")
        at = end
    return found


def _lines(value: Mapping[str, Any], indent: str = "  ") -> list[str]:
    lines: list[str] = []
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            lines += [f"{indent}{key}:", *_lines(inner, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {json.dumps(inner, ensure_ascii=False)}")
    return lines
