"""Which rotary embedding does a config.json ask for, and is it the one that is computed here?

Only the plain one is computed: one base for all layers, over the first `rotary_dim` numbers of
each head. Configs write it in older keys (`rope_theta`, `rotary_dim`, `rope_scaling`) or newer ones
(`rope_parameters`, whole or for each kind of layer). A config that asks for another rotation,
contradicts itself or leaves something out is refused: any default would be another model.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from moe_model.config_values import integer, number, table

_TABLES = ("rope_scaling", "rope_parameters")
_OWN_KEYS = (*_TABLES, "rope_theta", "rotary_dim", "partial_rotary_factor")
_TABLE_KEYS = ("rope_type", "type", "rope_theta", "partial_rotary_factor")


@dataclass(frozen=True, kw_only=True)
class Rope:
    """A rotation of the first `rotary_dim` numbers of a head, with frequencies of base `theta`."""

    rotary_dim: int
    theta: float


def read_rope(raw: Mapping[str, Any], head_dim: int) -> Rope:
    """Raises ValueError for any other rotation, for contradictions and for what is missing."""
    for key, value in raw.items():
        is_ours = "rope" in key.lower() or "rotary" in key.lower()
        if is_ours and key not in _OWN_KEYS and value not in (None, False, {}, []):
            raise ValueError(f"config.json: {key} {value!r} is not supported")
    places = [("", raw), *((f"{name}.", rope) for name, rope in _tables(raw))]
    return Rope(rotary_dim=_rotary_dim(places, head_dim), theta=_theta(places))


_Places = list[tuple[str, Mapping[str, Any]]]
"""Prefix of the keys' names, and the object that has them."""


def _tables(raw: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every table about the rotation, by name. Raises ValueError if one is not plain."""
    for name in _TABLES:
        outer = table(raw, name)
        inner = {key: value for key, value in outer.items() if isinstance(value, dict)}
        own = {key: value for key, value in outer.items() if key not in inner}
        for where, rope in [(name, own), *((f"{name}.{key}", inner[key]) for key in inner)]:
            _refuse_unplain(where, rope)
            yield where, rope


def _refuse_unplain(where: str, rope: Mapping[str, Any]) -> None:
    for key in ("rope_type", "type"):
        if rope.get(key) not in (None, "default"):
            raise ValueError(
                f"config.json: {where}: {key} {rope[key]!r} is not supported; only 'default'"
            )
    for key, value in rope.items():
        is_nothing = value is None or (key == "factor" and value == 1)
        if key not in _TABLE_KEYS and not is_nothing:
            raise ValueError(f"config.json: {where}: {key} {value!r} is not supported")


def _theta(places: _Places) -> float:
    found = {
        f"{prefix}rope_theta": number(place, "rope_theta", 0.0, where=prefix)
        for prefix, place in places
        if place.get("rope_theta") is not None
    }
    if not found:
        raise ValueError("config.json: rope_theta is missing (rope_parameters may have it, too)")
    return _the_one(found)


def _rotary_dim(places: _Places, head_dim: int) -> int:
    factors = {
        f"{prefix}partial_rotary_factor": _factor(prefix, place["partial_rotary_factor"])
        for prefix, place in places
        if place.get("partial_rotary_factor") is not None
    }
    raw = places[0][1]
    if raw.get("rotary_dim") is None:
        if not factors:
            raise ValueError(
                "config.json: rotary_dim is missing (or partial_rotary_factor, 1.0 for whole heads)"
            )
        return int(head_dim * _the_one(factors))
    rotary_dim = integer(raw, "rotary_dim")
    for name, factor in factors.items():
        if abs(head_dim * factor - rotary_dim) >= 1:
            raise ValueError(
                f"config.json: rotary_dim {rotary_dim} and {name} {factor} contradict each other "
                f"(head_dim is {head_dim})"
            )
    return rotary_dim


def _factor(prefix: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValueError(
            f"config.json: {prefix}partial_rotary_factor must be in (0, 1], got {value!r}"
        )
    return float(value)


def _the_one(found: Mapping[str, float]) -> float:
    """The value that all of them have. Raises ValueError if they differ."""
    (first, value), *others = found.items()
    for name, other in others:
        if other != value:
            raise ValueError(
                f"config.json: {first} {value:g} and {name} {other:g} contradict each other"
            )
    return value
