"""Where in a JSON text does each value stand? A parser that keeps places; comments are allowed."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from expertmesh.connect.formats.format import UnmergeableError

MAX_DEPTH = 100

_SPACE = re.compile(r"(?:[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_BARE = re.compile(r"[-+.\w]+")


@dataclass
class Node:
    """A value, which is `text[start:end]`."""

    start: int
    end: int
    value: Any
    members: "list[Member] | None" = None
    """Of an object; None for other values."""


@dataclass
class Member:
    """A key and its value."""

    key: str
    start: int
    node: Node
    comma: int | None = field(default=None)
    """Where the comma behind it stands."""


def parse_tree(text: str) -> Node:
    """The whole text, which must be one object. Raises UnmergeableError."""
    start = _skip(text, 0)
    if not text.startswith("{", start):
        raise UnmergeableError("it is not a JSON object")
    node = _value(text, start, 0)
    rest = _skip(text, node.end)
    if rest != len(text):
        raise _wrong(text, rest)
    return node


def after_comments(text: str, start: int, end: int) -> int:
    """Where between two places the last comment or other text ends, before mere space."""
    return start + len(text[start:end].rstrip())


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _value(text: str, at: int, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise UnmergeableError(f"it is nested more than {MAX_DEPTH} deep")
    first = text[at : at + 1]
    if first == "{":
        return _object(text, at, depth)
    if first == "[":
        return _array(text, at, depth)
    found = _STRING.match(text, at) if first == '"' else _BARE.match(text, at)
    if found is None:
        raise _wrong(text, at)
    try:
        value = json.loads(found[0], parse_constant=_no_constant)
    except ValueError:
        raise _wrong(text, at) from None
    return Node(at, found.end(), value)


def _object(text: str, start: int, depth: int) -> Node:
    members: list[Member] = []
    at = _skip(text, start + 1)
    while not text.startswith("}", at):
        if members and members[-1].comma is None:
            raise _wrong(text, at)
        key = _STRING.match(text, at)
        colon = _skip(text, key.end()) if key else at
        if key is None or not text.startswith(":", colon):
            raise _wrong(text, at)
        node = _value(text, _skip(text, colon + 1), depth + 1)
        member = Member(_value(text, at, depth + 1).value, at, node)
        if any(member.key == other.key for other in members):
            raise UnmergeableError(f"it has {member.key!r} twice in one object")
        members.append(member)
        at = _skip(text, node.end)
        if text.startswith(",", at):
            member.comma = at
            at = _skip(text, at + 1)
    return Node(start, at + 1, {one.key: one.node.value for one in members}, members)


def _array(text: str, start: int, depth: int) -> Node:
    values, is_next = [], True
    at = _skip(text, start + 1)
    while not text.startswith("]", at):
        if not is_next:
            raise _wrong(text, at)
        node = _value(text, at, depth + 1)
        values.append(node.value)
        at = _skip(text, node.end)
        is_next = text.startswith(",", at)
        if is_next:
            at = _skip(text, at + 1)
    return Node(start, at + 1, values)


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _wrong(text: str, at: int) -> UnmergeableError:
    line = text.count("\n", 0, at) + 1
    return UnmergeableError(f"it is not JSON: line {line} cannot be read")
