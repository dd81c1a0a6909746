"""What is the value of a key of config.json?

Every function raises ValueError naming the key, its value and what is allowed.
"""

import math
from collections.abc import Mapping
from typing import Any


def table(raw: Mapping[str, Any], key: str) -> dict[str, Any]:
    """An object within the config; empty when absent, null or empty."""
    value = raw.get(key) or {}
    if not isinstance(value, dict):
        raise ValueError(f"config.json: {key} must be an object, got {value!r}")
    return value


def boolean(raw: Mapping[str, Any], key: str, default: bool) -> bool:
    value = raw.get(key, default)
    if not isinstance(value, bool):
        raise ValueError(f"config.json: {key} must be true or false, got {value!r}")
    return value


def integer(
    raw: Mapping[str, Any], key: str, default: int | None = None, *, most: int = 2**31 - 1
) -> int:
    value = raw.get(key)
    if value is None:
        if default is None:
            raise ValueError(f"config.json: {key} is missing")
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"config.json: {key} must be an integer in 0..{most}, got {value!r}")
    return value


def number(raw: Mapping[str, Any], key: str, default: float, *, where: str = "") -> float:
    """`where`: prefix of the key's name in messages, if it is in a table."""
    value = raw.get(key, default)
    try:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        finite = float(value) if is_number else math.nan
    except OverflowError:  # an integer beyond any float
        finite = math.nan
    if not math.isfinite(finite):
        raise ValueError(
            f"config.json: {where}{key} must be a finite number, got {str(value)[:100]}"
        )
    return finite


def token_ids(raw: Mapping[str, Any], key: str) -> tuple[int, ...]:
    value = raw.get(key)
    if value is None:
        return ()
    ids = value if isinstance(value, list) else [value]
    if not all(isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in ids):
        raise ValueError(f"config.json: {key} must be a token id or a list of them, got {value!r}")
    return tuple(ids)
