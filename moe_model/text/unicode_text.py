"""Is every string in a nested value valid Unicode text, and what is there instead where it is not?"""

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


def require_valid_text(field: str, value: Any) -> None:
    """Raise a ValueError naming `field` when any string in it, keys included, is not valid."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if not is_valid_text(item):
                raise ValueError(f"{field}: must be valid Unicode text, has a lone surrogate")
        elif isinstance(item, dict):
            pending.extend(item.keys())
            pending.extend(item.values())
        elif isinstance(item, list | tuple):
            pending.extend(item)


def is_valid(value: Any) -> bool:
    """Whether `require_valid_text` would let it pass."""
    try:
        require_valid_text("value", value)
    except ValueError:
        return False
    return True


def repaired(value: Any) -> Any:
    """The value with U+FFFD for each lone surrogate, keys included; the same object if it has none.

    Two halves of a character that have come together are that character.
    Two halves of a character that have come together are that character.
    Keys that would become equal are told apart by a number after them, so that none is lost.
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
