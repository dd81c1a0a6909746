"""Is every string in a nested value valid Unicode text?"""

from typing import Any


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
