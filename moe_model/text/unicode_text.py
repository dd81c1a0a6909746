"""Is every string in a nested value valid Unicode text, and what replaces what is not?"""

from collections.abc import Iterator
from typing import Any

_UTF16 = "utf-16-le"


def is_valid_text(text: str) -> bool:
    """False when the string has a lone surrogate, which no UTF-8 can carry."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def strings_in(value: Any) -> Iterator[str]:
    """Every string in nested JSON values, keys included."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            pending += [*item, *item.values()]
        elif isinstance(item, list | tuple):
            pending += item


def is_valid(value: Any) -> bool:
    """False when any string in the value has a lone surrogate."""
    return all(map(is_valid_text, strings_in(value)))


def require_valid_text(field: str, value: Any) -> None:
    """Raise a ValueError naming `field` when any string in the value has a lone surrogate."""
    if not is_valid(value):
        raise ValueError(f"{field}: must be valid Unicode text, has a lone surrogate")


def repaired(value: Any) -> Any:
    """The value with U+FFFD for each lone surrogate, keys included; the same object if it has none.

    Two surrogates that form a pair become the character that they encode. Keys that would become
    equal get a number after them, so that none is lost.
    """
    if isinstance(value, str):
        if is_valid_text(value):
            return value
        return value.encode(_UTF16, "surrogatepass").decode(_UTF16, "replace")
    if isinstance(value, list):
        items = [repaired(item) for item in value]
        return value if _same(items, value) else items
    if isinstance(value, dict):
        keys = list(value)
        new_keys = _distinct([repaired(key) for key in keys]) if not is_valid(keys) else keys
        items = [repaired(item) for item in value.values()]
        if new_keys is keys and _same(items, list(value.values())):
            return value
        return dict(zip(new_keys, items, strict=True))
    return value


def _same(left: list[Any], right: list[Any]) -> bool:
    return all(a is b for a, b in zip(left, right, strict=True))


def _distinct(keys: list[Any]) -> list[Any]:
    """The keys, repeated ones numbered; a number that is taken is passed over."""
    taken = set(keys)
    seen: set[Any] = set()
    number = 0
    distinct = []
    for key in keys:
        name = key
        if key in seen:
            while name in taken:
                number += 1
                name = f"{key}{number}"
            taken.add(name)
        seen.add(key)
        distinct.append(name)
    return distinct
