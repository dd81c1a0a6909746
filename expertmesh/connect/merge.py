"""How do our values get into a text, and out of it again, so that nothing else changes?

Each change is checked: what the text says besides our values must be the same before and after.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from expertmesh.connect.formats.format import Format, Path, UnmergeableError

Values = Mapping[Path, Any]
"""The place of each value, and the value; None is for what must not be there."""


@dataclass(frozen=True)
class Wanted:
    """What a client needs of one file."""

    values: Values
    defaults: Values = field(default_factory=dict)
    """Values that are only put where there is none."""
    owned: tuple[Path, ...] = ()
    """Mappings that make no sense without our values: if we made them, they go as a whole."""


@dataclass(frozen=True)
class Change:
    """One value of ours, as it is written in the text; None where there is nothing."""

    path: Path
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Trace:
    """All that is ours in a text; enough to take it out again."""

    changes: tuple[Change, ...] = ()
    made: tuple[Path, ...] = ()
    """Mappings that were not there before, the outer ones first."""
    owned: tuple[Path, ...] = ()
    """Of these, the ones that go as a whole."""

    @property
    def paths(self) -> list[Path]:
        return [change.path for change in self.changes]


def values_of(nested: Mapping[str, Any], above: Path = ()) -> dict[Path, Any]:
    """Nested mappings as places with values. Lists are values."""
    found: dict[Path, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            found.update(values_of(value, (*above, key)))
        else:
            found[(*above, key)] = value
    return found


def merge(
    kind: Format, text: str, wanted: Wanted, earlier: Trace | None = None
) -> tuple[str, Trace]:
    """The text with our values, and what was changed. Raises UnmergeableError.

    Args:
        earlier: what an earlier merge left in the text. Values of it that are not wanted any more
            are taken out, and what was there before it is remembered.
    """
    earlier = earlier or Trace()
    known = {change.path: change for change in earlier.changes}
    values = _with_defaults(kind, text, wanted, known)
    stale = tuple(change for change in earlier.changes if change.path not in values)
    merged = _without(kind, text, Trace(stale, earlier.made))
    made = [path for path in earlier.made if _is_mapping(kind.parse(merged), path)]
    changes = []
    for path, value in values.items():
        written = None if value is None else kind.written(value)
        there = kind.get(merged, path)
        ours = known.get(path)
        before = ours.before if ours and _same(kind, there, ours.after) else there
        changes.append(Change(path, before, written))
        if _same(kind, there, written):
            continue
        if written is None:
            merged = kind.drop(merged, path)
            continue
        said = kind.parse(merged)
        made += [path[:n] for n in range(1, len(path)) if not _is_mapping(said, path[:n])]
        merged = kind.put(merged, path, written)
    made = sorted(set(made), key=lambda path: (len(path), path))
    merged = _without(kind, merged, Trace((), tuple(made)))  # what a dropped value has left empty
    made = [path for path in made if _is_mapping(kind.parse(merged), path)]
    trace = Trace(tuple(changes), tuple(made), tuple(p for p in made if p in wanted.owned))
    _check(kind, text, merged, [*trace.paths, *earlier.paths])
    for change in changes:
        if not _same(kind, kind.get(merged, change.path), change.after):
            raise UnmergeableError(f"{'.'.join(change.path)} cannot be set in it")
    return merged, trace


def unmerge(kind: Format, text: str, trace: Trace) -> str:
    """The text without our values, where they are still as we wrote them. Raises
    UnmergeableError."""
    cleaned = _without(kind, text, trace)
    for path in trace.owned:
        if _is_mapping(kind.parse(cleaned), path):
            cleaned = kind.drop(cleaned, path)
    cleaned = _without(kind, cleaned, Trace((), trace.made))
    _check(kind, text, cleaned, [*trace.paths, *trace.owned])
    return cleaned


def _with_defaults(
    kind: Format, text: str, wanted: Wanted, known: Mapping[Path, Change]
) -> dict[Path, Any]:
    """All values to put: of the defaults those that are missing or were ours and are so still."""
    missing = {
        path: value
        for path, value in wanted.defaults.items()
        if (there := kind.get(text, path)) is None
        or (path in known and _same(kind, there, known[path].after))
    }
    return {**missing, **wanted.values}


def _without(kind: Format, text: str, trace: Trace) -> str:
    for change in reversed(trace.changes):
        there = kind.get(text, change.path)
        if not _same(kind, there, change.after) or _same(kind, there, change.before):
            continue  # somebody has changed it since: it is theirs; or it had been so
        if change.before is None:
            text = kind.drop(text, change.path)
        else:
            text = kind.put(text, change.path, change.before)
    for path in reversed(trace.made):
        if _at(kind.parse(text), path) == {}:
            text = kind.drop(text, path)
    return text


def _same(kind: Format, one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return one is other
    return kind.same(one, other)


def _check(kind: Format, old: str, new: str, ours: Sequence[Path]) -> None:
    # As texts: there, 1 is not True, and nan is nan.
    if repr(_of_others(kind.parse(old), ours)) != repr(_of_others(kind.parse(new), ours)):
        raise UnmergeableError("a change of it would have changed something else, too")


def _of_others(said: dict[str, Any], ours: Sequence[Path]) -> dict[str, Any]:
    """Without our values, and without mappings on the way to them that are empty then."""
    said = copy.deepcopy(said)
    for path in ours:
        for length in range(len(path), 0, -1):
            above = _at(said, path[: length - 1])
            if not isinstance(above, dict) or path[length - 1] not in above:
                continue
            if length == len(path) or above[path[length - 1]] == {}:
                del above[path[length - 1]]
    return said


def _at(said: Any, path: Path) -> Any:
    for key in path:
        if not isinstance(said, dict) or key not in said:
            return None
        said = said[key]
    return said


def _is_mapping(said: dict[str, Any], path: Path) -> bool:
    return isinstance(_at(said, path), dict)
