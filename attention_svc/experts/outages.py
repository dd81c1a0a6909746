"""Which pieces have had no sound answer, and since when? No I/O, no clock of its own.

A piece with a holder is not necessarily served: the holder may answer only garbage. An outage ends
only with a sound answer, so that neither retries nor later steps restart its time.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

GRACE_S = 1.0
"""A shorter outage is a call that was sent again; it is not reported."""

_Piece = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Outage:
    """`since_s` is on the caller's clock; `why` is what went wrong first."""

    since_s: float
    why: str


class Outages:
    """Changed from one thread; any thread may read."""

    def __init__(self) -> None:
        self.open: Mapping[_Piece, Outage] = {}  # replaced, never changed: other threads read it
        self.waiting = 0
        """Calls in trouble, each of which asks for its pieces itself."""

    def note(self, layer_idx: int, experts: Iterable[int], since_s: float, why: str) -> None:
        """These have no sound answer. An outage that is noted already stays as it is."""
        new = {(layer_idx, expert_id): Outage(since_s, why) for expert_id in experts}
        self.open = new | dict(self.open)

    def over(self, layer_idx: int, experts: Iterable[int]) -> None:
        """A sound answer came for these."""
        answered = {(layer_idx, expert_id) for expert_id in experts}
        self.open = {piece: it for piece, it in self.open.items() if piece not in answered}

    def since_s(self, layer_idx: int, experts: Iterable[int], default_s: float) -> float:
        """When the oldest outage among these began, or `default_s`."""
        pieces = ((layer_idx, expert_id) for expert_id in experts)
        return min(
            (self.open[piece].since_s for piece in pieces if piece in self.open),
            default=default_s,
        )

    def by_layer(self) -> dict[int, list[int]]:
        """layer_idx -> its experts that are out."""
        layers: dict[int, list[int]] = {}
        for layer_idx, expert_id in sorted(self.open):
            layers.setdefault(layer_idx, []).append(expert_id)
        return layers

    def reason(self, now_s: float) -> str:
        """Why the service is not ready; empty when no outage has lasted."""
        lasting = {piece: it for piece, it in self.open.items() if now_s - it.since_s >= GRACE_S}
        if not lasting:
            return ""
        (layer_idx, _), first = min(lasting.items(), key=lambda item: item[1].since_s)
        return f"no sound answer from the experts of layer {layer_idx}: {first.why}"
