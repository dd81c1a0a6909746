"""Which (layer, expert) pieces are in a set, and how is a set sent?

`Pieces` keeps one integer bitmask per layer, so that set operations on a whole
M2 mesh (15,872 pieces) are a few integer operations. Sets from the wire
are checked against the model's sizes before anything is allocated for them.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping

from protos import pieces_pb2
from protos.limits import MAX_EXPERTS, MAX_LAYERS

Piece = tuple[int, int]
"""(layer_idx, expert_id)."""


class Pieces:
    """An immutable set of (layer_idx, expert_id); iterates in layer, then expert order."""

    __slots__ = ("_masks",)

    def __init__(self, pieces: Iterable[Piece] = ()):
        """Raises ValueError for a piece beyond MAX_LAYERS or MAX_EXPERTS."""
        masks: dict[int, int] = {}
        for layer_idx, expert_id in pieces:
            _check_sizes(layer_idx + 1, expert_id + 1)
            masks[layer_idx] = masks.get(layer_idx, 0) | 1 << expert_id
        self._masks = dict(sorted(masks.items()))

    @classmethod
    def from_masks(cls, masks: Mapping[int, int]) -> "Pieces":
        """From a bitmask of expert ids per layer; the caller has checked their sizes."""
        made = cls()
        made._masks = {layer: masks[layer] for layer in sorted(masks) if masks[layer]}
        return made

    @classmethod
    def grid(cls, layers: Iterable[int], experts: Iterable[int]) -> "Pieces":
        """Every named expert of every named layer."""
        return cls(itertools.product(layers, experts))

    @classmethod
    def all_of(cls, num_layers: int, num_experts: int) -> "Pieces":
        """All pieces of a model. Raises ValueError for sizes beyond the limits."""
        _check_sizes(num_layers, num_experts)
        return cls.from_masks(dict.fromkeys(range(num_layers), (1 << num_experts) - 1))

    @classmethod
    def union(cls, sets: Iterable["Pieces"]) -> "Pieces":
        """The pieces in at least one of the sets."""
        masks: dict[int, int] = {}
        for pieces in sets:
            for layer, mask in pieces._masks.items():
                masks[layer] = masks.get(layer, 0) | mask
        return cls.from_masks(masks)

    @classmethod
    def from_message(
        cls,
        message: pieces_pb2.PieceSet,
        *,
        num_layers: int,
        num_experts: int,
        field: str = "pieces",
    ) -> "Pieces":
        """Read a PieceSet of a model of these sizes. Raises ValueError naming `field`."""
        _check_sizes(num_layers, num_experts)
        masks: dict[int, int] = {}
        previous_layer = -1
        for entry in message.layers:
            layer = entry.layer_idx
            if not previous_layer < layer < num_layers:
                raise ValueError(
                    f"{field}: layers must ascend and be below {num_layers}, got {layer}"
                    f" after {previous_layer}"
                )
            previous_layer = layer
            masks[layer] = _mask_of(entry.ranges, num_experts, f"{field}: layer {layer}")
        return cls.from_masks(masks)

    def to_message(self) -> pieces_pb2.PieceSet:
        """As ascending ranges that neither overlap nor touch."""
        message = pieces_pb2.PieceSet()
        for layer, mask in self._masks.items():
            entry = message.layers.add(layer_idx=layer)
            for first, count in _runs(mask):
                entry.ranges.add(first=first, count=count)
        return message

    @property
    def masks(self) -> Mapping[int, int]:
        """Layer to bitmask of expert ids, ascending, without empty layers; not to be changed."""
        return self._masks

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers of which at least one piece is in the set, ascending."""
        return tuple(self._masks)

    def experts(self, layer_idx: int) -> tuple[int, ...]:
        """Expert ids of a layer, ascending."""
        return tuple(bits(self._masks.get(layer_idx, 0)))

    def count(self, layer_idx: int) -> int:
        """How many pieces of a layer are in the set."""
        return self._masks.get(layer_idx, 0).bit_count()

    def first(self, limit: int) -> "Pieces":
        """The lowest `limit` pieces in layer, then expert order."""
        masks: dict[int, int] = {}
        left = limit
        for layer, mask in self._masks.items():
            if left <= 0:
                break
            if mask.bit_count() > left:
                mask = lowest_bits(mask, left)
            masks[layer] = mask
            left -= mask.bit_count()
        return Pieces.from_masks(masks)

    def missing(self, num_layers: int, num_experts: int) -> "Pieces":
        """The pieces of a model of these sizes that are not in the set."""
        return Pieces.all_of(num_layers, num_experts) - self

    def __or__(self, other: "Pieces") -> "Pieces":
        return Pieces.union((self, other))

    def __and__(self, other: "Pieces") -> "Pieces":
        return Pieces.from_masks(
            {layer: mask & other._masks.get(layer, 0) for layer, mask in self._masks.items()}
        )

    def __sub__(self, other: "Pieces") -> "Pieces":
        return Pieces.from_masks(
            {layer: mask & ~other._masks.get(layer, 0) for layer, mask in self._masks.items()}
        )

    def __le__(self, other: "Pieces") -> bool:
        """Whether `other` holds every piece of this set."""
        return all(not mask & ~other._masks.get(layer, 0) for layer, mask in self._masks.items())

    def __contains__(self, piece: Piece) -> bool:
        layer_idx, expert_id = piece
        return expert_id >= 0 and bool(self._masks.get(layer_idx, 0) >> expert_id & 1)

    def __iter__(self) -> Iterator[Piece]:
        for layer, mask in self._masks.items():
            for expert_id in bits(mask):
                yield layer, expert_id

    def __len__(self) -> int:
        return sum(mask.bit_count() for mask in self._masks.values())

    def __bool__(self) -> bool:
        return bool(self._masks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pieces) and self._masks == other._masks

    def __hash__(self) -> int:
        return hash(tuple(self._masks.items()))

    def describe(self, limit: int = 8) -> str:
        """For people: "layer 0 (all named ranges); ...", at most `limit` layers in full."""
        shown = "; ".join(
            f"layer {layer} experts " + ",".join(_range_text(*run) for run in _runs(mask))
            for layer, mask in list(self._masks.items())[:limit]
        )
        more = len(self._masks) - limit
        return f"{shown}; and {more} layers more" if more > 0 else shown

    def __repr__(self) -> str:
        return f"Pieces({len(self)}: {self.describe(4)})"


def parse_ranges(text: str, flag: str, limit: int = MAX_EXPERTS) -> tuple[int, ...]:
    """Read "0-3,5" as (0, 1, 2, 3, 5), ascending, each once.

    Raises ValueError naming `flag` on anything else, and on a number of `limit` or more.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        first_text, dash, last_text = (piece.strip() for piece in part.partition("-"))
        last_text = last_text if dash else first_text
        if not all(t.isascii() and t.isdecimal() and len(t) <= 9 for t in (first_text, last_text)):
            raise ValueError(f"{flag}: expected numbers and ranges like 0-3,5, got {text[:80]!r}")
        first, last = int(first_text), int(last_text)
        if first > last:
            raise ValueError(f"{flag}: the range {first}-{last} runs backwards")
        if last >= limit:
            raise ValueError(f"{flag}: {last} is out of range, allowed are 0 to {limit - 1}")
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def _check_sizes(num_layers: int, num_experts: int) -> None:
    if not 1 <= num_layers <= MAX_LAYERS:
        raise ValueError(f"layers: a model has 1 to {MAX_LAYERS} layers, got {num_layers}")
    if not 1 <= num_experts <= MAX_EXPERTS:
        raise ValueError(f"experts: a layer has 1 to {MAX_EXPERTS} experts, got {num_experts}")


def _mask_of(ranges: Iterable[pieces_pb2.ExpertRange], num_experts: int, where: str) -> int:
    mask, previous_end = 0, 0
    for run in ranges:
        first, count = run.first, run.count
        if count < 1 or first < previous_end or first + count > num_experts:
            raise ValueError(
                f"{where}: ranges must ascend, hold at least one expert and end below"
                f" {num_experts}, got {count} from {first}"
            )
        mask |= ((1 << count) - 1) << first
        previous_end = first + count
    return mask


def _runs(mask: int) -> Iterator[tuple[int, int]]:
    """(first, count) of each run of ones, ascending."""
    start = 0
    while mask:
        zeros = (mask & -mask).bit_length() - 1
        mask >>= zeros
        ones = (~mask & (mask + 1)).bit_length() - 1
        mask >>= ones
        yield start + zeros, ones
        start += zeros + ones


def bits(mask: int) -> Iterator[int]:
    """Positions of the ones, ascending."""
    for first, count in _runs(mask):
        yield from range(first, first + count)


def lowest_bits(mask: int, limit: int) -> int:
    """The `limit` lowest ones of a mask."""
    lowest = 0
    for expert_id in bits(mask):
        if limit == 0:
            break
        lowest |= 1 << expert_id
        limit -= 1
    return lowest


def _range_text(first: int, count: int) -> str:
    return str(first) if count == 1 else f"{first}-{first + count - 1}"
