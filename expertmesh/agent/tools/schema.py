"""Does a value fit a JSON schema? The subset that tools use, with messages for a model.

Checked: type, enum, const, properties, required, additionalProperties, items, anyOf, oneOf,
allOf, $ref within the schema, and the bounds of numbers, lengths and counts. Other keywords are
not: `pattern` among them, since an expression of a stranger's tool can take for ever.
"""

from collections.abc import Iterator
from typing import Any, TypeGuard

_MAX_STEPS = 20_000
"""A schema that refers to itself would otherwise be followed without end."""
_SHOWN_CHARS = 60
_BOUNDS: tuple[tuple[str, str], ...] = (
    ("minimum", "at least"),
    ("maximum", "at most"),
    ("exclusiveMinimum", "more than"),
    ("exclusiveMaximum", "less than"),
)


def problems(value: Any, schema: Any) -> list[str]:
    """One line for each fault, with the field's name and what is allowed; empty if it fits."""
    try:
        return list(_Check(schema).faults(value, schema, ""))
    except (_TooLongError, RecursionError):
        return ["the arguments are nested too deeply for their schema"]


class _TooLongError(Exception):
    pass


class _Check:
    """One value against one schema."""

    def __init__(self, root: Any):
        self._root = root
        self._steps = 0

    def faults(self, value: Any, schema: Any, name: str) -> Iterator[str]:
        """`name` is the field's, "" for the arguments as a whole."""
        self._steps += 1
        if self._steps > _MAX_STEPS:
            raise _TooLongError
        if schema is False:
            yield f"{_of(name)}not allowed"
        if not isinstance(schema, dict):
            return
        if "$ref" in schema:
            yield from self.faults(value, self._referenced(schema["$ref"]), name)
        yield from self._of_alternatives(value, schema, name)
        if not _has_type(value, schema.get("type")):
            yield f"{_of(name)}must be {_type_names(schema['type'])}, not {_shown(value)}"
            return
        yield from _of_choice(value, schema, name)
        if isinstance(value, dict):
            yield from self._of_object(value, schema, name)
        elif isinstance(value, list):
            yield from _of_size(len(value), schema, "Items", name)
            for index, item in enumerate(value):
                yield from self.faults(item, schema.get("items"), f"{name}[{index}]")
        elif isinstance(value, str):
            yield from _of_size(len(value), schema, "Length", name)
        elif _is_number(value):
            yield from _of_number(value, schema, name)

    def _of_alternatives(self, value: Any, schema: dict[str, Any], name: str) -> Iterator[str]:
        for part in _list(schema.get("allOf")):
            yield from self.faults(value, part, name)
        for keyword in ("anyOf", "oneOf"):
            found = [list(self.faults(value, part, name)) for part in _list(schema.get(keyword))]
            fitting = sum(not faults for faults in found)
            if found and not fitting:
                nearest = min(found, key=len)[0]
                yield f"{_of(name)}fits none of {len(found)} forms; of the nearest: {nearest}"
            elif keyword == "oneOf" and fitting > 1:
                yield f"{_of(name)}fits {fitting} forms and must fit one"

    def _of_object(self, value: dict[str, Any], schema: dict[str, Any], name: str) -> Iterator[str]:
        known = _dict(schema.get("properties"))
        for wanted in _list(schema.get("required")):
            if wanted not in value:
                yield f"{_below(name, wanted)} is missing"
        others = schema.get("additionalProperties", True)
        for key, item in value.items():
            if key in known:
                yield from self.faults(item, known[key], _below(name, key))
            elif others is False:
                listed = ", ".join(known) or "none"
                yield f"{_below(name, key)}: there is no such argument; known are {listed}"
            else:
                yield from self.faults(item, others, _below(name, key))

    def _referenced(self, reference: Any) -> Any:
        """What "#/$defs/name" points at; True, which everything fits, if that is elsewhere."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            return True
        found = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or key not in found:
                return True
            found = found[key]
        return found


def _of_choice(value: Any, schema: dict[str, Any], name: str) -> Iterator[str]:
    if "enum" not in schema and "const" not in schema:
        return
    allowed = _list(schema.get("enum", [schema.get("const")]))
    if not any(_same(value, one) for one in allowed):
        listed = ", ".join(_shown(one) for one in allowed)
        yield f"{_of(name)}must be one of {listed}, not {_shown(value)}"


def _of_size(size: int, schema: dict[str, Any], unit: str, name: str) -> Iterator[str]:
    of_what = "items" if unit == "Items" else "characters"
    least, most = schema.get(f"min{unit}"), schema.get(f"max{unit}")
    if _is_number(least) and size < least:
        yield f"{_of(name)}needs at least {least} {of_what}, has {size}"
    if _is_number(most) and size > most:
        yield f"{_of(name)}may have at most {most} {of_what}, has {size}"


def _of_number(value: float, schema: dict[str, Any], name: str) -> Iterator[str]:
    for keyword, words in _BOUNDS:
        bound = schema.get(keyword)
        if not _is_number(bound):
            continue
        fits = {
            "minimum": value >= bound,
            "maximum": value <= bound,
            "exclusiveMinimum": value > bound,
            "exclusiveMaximum": value < bound,
        }[keyword]
        if not fits:
            yield f"{_of(name)}must be {words} {bound}, not {_shown(value)}"


def _has_type(value: Any, wanted: Any) -> bool:
    """Whether it is of the type, or of one in a list; names unknown to JSON schema fit all."""
    if isinstance(wanted, list):
        return any(_has_type(value, one) for one in wanted)
    return {
        "null": value is None,
        "boolean": isinstance(value, bool),
        "string": isinstance(value, str),
        "number": _is_number(value),
        "integer": _is_number(value) and (isinstance(value, int) or value.is_integer()),
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
    }.get(wanted, True)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(left: Any, right: Any) -> bool:
    """Equality of JSON, in which true is not 1."""
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _list(value: Any) -> list[Any]:
    """A stranger's schema may have anything where a list belongs."""
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _type_names(wanted: Any) -> str:
    return " or ".join(map(str, wanted)) if isinstance(wanted, list) else str(wanted)


def _of(name: str) -> str:
    return f"{name} " if name else "the arguments: "


def _below(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."
