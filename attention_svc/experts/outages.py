"""Which pieces has nobody answered for soundly, and since when? No I/O, no clock of its own.

A piece with a holder is not yet a piece that is served: the holder may answer only garbage. What is
noted here ends with a sound answer alone, so that neither retries nor later steps start time anew.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

GRACE_S = 1.0
"""A shorter outage is a call that was sent again, and nobody's business."""

_Piece = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Outage:
    """`since_s` on the caller's clock; `why`: what went wrong first."""

    since_s: float
    why: str


class Outages:
    """To be changed from one thread; any may ask."""

    def __init__(self) -> None:
        self.open: Mapping[_Piece, Outage] = {}  # replaced, never changed: other threads look at it
        self.waiting = 0
        """Calls that were not answered at once."""

    def note(self, layer_idx: int, experts: Iterable[int], since_s: float, why: str) -> None:
        """These have no sound answer. Of one that is noted already the first word stays."""
        new = {(layer_idx, expert_id): Outage(since_s, why) for expert_id in experts}
        self.open = new | dict(self.open)

    def over(self, layer_idx: int, experts: Iterable[int]) -> None:
        """A sound answer came for these."""
        answered = {(layer_idx, expert_id) for expert_id in experts}
        self.open = {piece: it for piece, it in self.open.items() if piece not in answered}

    def since_s(self, layer_idx: int, experts: Iterable[int], default_s: float) -> float:
        """When the oldest outage among these began, or `default_s`."""
        pieces = ((layer_idx, expert_id) for expert_id in experts)
        return min((self.open[piece].since_s for piece in pieces if piece in self.open),
                   default=default_s)  # fmt: skip

    def by_layer(self) -> dict[int, list[int]]:
        """layer_idx -> its experts that are out."""
        layers: dict[int, list[int]] = {}
        for layer_idx, expert_id in sorted(self.open):
            layers.setdefault(layer_idx, []).append(expert_id)
        return layers

    def reason(self, now_s: float) -> str:
        """Why the service is not ready, or an empty text."""
        lasting = {piece: it for piece, it in self.open.items() if now_s - it.since_s >= GRACE_S}
        if not lasting:
            return ""
        (layer_idx, _), first = min(lasting.items(), key=lambda item: item[1].since_s)
        return f"no sound answer from the experts of layer {layer_idx}: {first.why}"
