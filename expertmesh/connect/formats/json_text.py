"""How is a value changed in a JSON file, so that its order, its comments and its looks stay?"""

import json
import re
from typing import Any

from expertmesh.connect.formats.format import Path, UnmergeableError, newline_of
from expertmesh.connect.formats.json_tree import Member, Node, after_comments, parse_tree

_STEP = "  "


class JsonText:
    """JSON, with comments and trailing commas where somebody has put them."""

    def parse(self, text: str) -> dict[str, Any]:
        value: dict[str, Any] = parse_tree(text).value if text.strip() else {}
        return value

    def written(self, value: Any) -> str:
        return json.dumps(value, indent=2, ensure_ascii=False)

    def same(self, one: str, other: str) -> bool:
        first, second = (parse_tree(f'{{"": {text}}}').value for text in (one, other))
        return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)

    def get(self, text: str, path: Path) -> str | None:
        if not text.strip():
            return None
        node: Node | None = parse_tree(text)
        for key in path:
            node = _child(node, key)
        return text[node.start : node.end] if node else None

    def put(self, text: str, path: Path, written: str) -> str:
        if not text.strip():
            text = "{}\n"
        node, rest = parse_tree(text), list(path)
        while rest:
            if node.members is None:
                place = ".".join(path[: len(path) - len(rest)])
                raise UnmergeableError(f"{place} is there, but is no object")
            child = _child(node, rest[0])
            if child is None:
                return _insert(text, node, rest, written)
            node, rest = child, rest[1:]
        return text[: node.start] + _indented(text, node.start, written) + text[node.end :]

    def drop(self, text: str, path: Path) -> str:
        node = parse_tree(text)
        for key in path[:-1]:
            child = _child(node, key)
            assert child is not None
            node = child
        return _without(text, node, path[-1])


def _child(node: Node | None, key: str) -> Node | None:
    if node is None or node.members is None:
        return None
    return next((one.node for one in node.members if one.key == key), None)


def _insert(text: str, node: Node, keys: list[str], written: str) -> str:
    """With a new last member of this object, and in it the objects that lead to the value."""
    assert node.members is not None
    last = node.members[-1] if node.members else None
    close = node.end - 1
    kept = _kept_until(text, node, last)
    on_lines = not last or "\n" in text[node.start : node.end]
    step, newline = _step(text), newline_of(text)
    outer = _indent_at(text, node.start)
    inner = (_indent_of(text, last) if last else None) or outer + step
    for key in reversed(keys[1:]):
        body = written.replace("\n", "\n" + _STEP)
        written = f"{{\n{_STEP}{json.dumps(key, ensure_ascii=False)}: {body}\n}}"
    member = f"{json.dumps(keys[0], ensure_ascii=False)}: {written}"
    if on_lines:
        lines = _with_step(member, step).replace("\n", newline + inner)
        added = newline + inner + lines
        space = text[kept:close]
        end = newline + (space.rpartition("\n")[2] if "\n" in space else outer)
    else:
        added = " " + " ".join(line.strip() for line in member.split("\n"))
        end = text[kept:close]
    if last is None or last.comma is not None:
        return text[:kept] + added + ("," if last else "") + end + text[close:]
    comma = last.node.end
    return text[:comma] + "," + text[comma:kept] + added + end + text[close:]


def _kept_until(text: str, node: Node, last: Member | None) -> int:
    """Where what is inside an object ends, its last comment included."""
    start = node.start + 1
    if last:
        start = last.node.end if last.comma is None else last.comma + 1
    return after_comments(text, start, node.end - 1)


def _without(text: str, node: Node, key: str) -> str:
    assert node.members is not None
    index = next(number for number, one in enumerate(node.members) if one.key == key)
    member = node.members[index]
    if index + 1 < len(node.members):
        assert member.comma is not None
        end = member.comma + 1
        blank = re.compile(r"[ \t]*(\r?\n[ \t]*)?").match(text, end)
        assert blank is not None
        return text[: member.start] + text[blank.end() :]
    end = member.node.end if member.comma is None else member.comma + 1
    previous = node.members[index - 1] if index else None
    start = node.start + 1
    if previous:
        assert previous.comma is not None
        start = previous.comma + 1
    kept = after_comments(text, start, member.start)
    before = text[:kept]
    if previous and previous.comma is not None and member.comma is None:
        before = text[: previous.comma] + text[previous.comma + 1 : kept]
    tail = text[end:]
    if not previous and kept == start and not text[end : node.end - 1].strip():
        tail = text[node.end - 1 :]
    return before + tail


def _indent_of(text: str, member: Member) -> str | None:
    """The space before a member that begins its line."""
    line = text.rfind("\n", 0, member.start) + 1
    space = text[line : member.start]
    return space if not space.strip() else None


def _indent_at(text: str, at: int) -> str:
    """The space with which the line of this place begins."""
    line = text.rfind("\n", 0, at) + 1
    found = re.compile(r"[ \t]*").match(text, line)
    return found[0] if found else ""


def _step(text: str) -> str:
    """By how much this file indents."""
    root = parse_tree(text)
    space = _indent_of(text, root.members[0]) if root.members else None
    return space or _STEP


def _with_step(text: str, step: str) -> str:
    """Text that is indented by two spaces, indented by this."""

    def line(found: re.Match[str]) -> str:
        return step * (len(found[0]) // len(_STEP))

    return re.sub(r"^ +", line, text, flags=re.MULTILINE)


def _indented(text: str, at: int, written: str) -> str:
    """A value as it looks at this place."""
    lines = _with_step(written, _step(text))
    return lines.replace("\n", newline_of(text) + _indent_at(text, at))
