"""What fits on GPUs, in which format, beside how long a context? And what is left for CPUs?

Whole layers go to cards. The first card has attention, the LM head and all keys and values, and as
many layers as then fit; the others hold layers only; what is left is for pools on CPUs. A card with
everything runs it in one process; else each card has a pool, and attention is one more process.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from expertmesh.cluster.card_layers import Contents, share_layers
from moe_model.config import ModelConfig
from moe_model.formats import ON_GPU, kv_position_bytes, piece_bytes
from moe_model.memory_need import MemoryNeed, gib

CHEAP_HOP_S = 165e-6
"""A round trip to pools on CPUs under which their hottest experts would be worth a card's place."""


@dataclass(frozen=True, kw_only=True)
class GpuPlan:
    """Of one format. `layers`: whole layers on each card; `positions`: of keys and values."""

    weight_format: str
    linear_format: str
    layers: tuple[int, ...]
    positions: int
    left_layers: int
    left_bytes: int
    """Of the host's memory, for these."""
    in_process: bool
    fits: bool
    """Attention, with the positions that were asked for, fits the first card."""
    attention: MemoryNeed
    """Of the process with attention."""
    pool: MemoryNeed
    """Of a card's pool, without weights."""

    def placement(self) -> list[str]:
        """What to place where, a line for each card and one for CPUs."""
        first, lines = 0, []
        for card, count in enumerate(self.layers):
            parts = ["attention, KV cache"] if card == 0 else []
            if count:
                parts.append(f"layers {_span(first, count)}")
            if card == 0 and self.in_process:
                parts.append("in one process")
            lines.append(f"cuda:{card}: {', '.join(parts) or 'nothing'}")
            first += count
        if self.left_layers:
            held = gib(self.left_bytes)
            lines.append(f"CPUs: layers {_span(first, self.left_layers)} in {held}")
        return lines

    def as_json(self) -> dict[str, Any]:
        return {
            "format": self.weight_format,
            "linear_format": self.linear_format,
            "fits": self.fits,
            "in_process": self.in_process,
            "layers": list(self.layers),
            "left_layers": self.left_layers,
            "left_bytes": self.left_bytes,
            "kv_positions": self.positions,
            "workspace_bytes": {
                "attention": self.attention.workspace.size,
                "pool": self.pool.workspace.size,
            },
            "placement": self.placement() if self.fits else [],
        }


def plan_gpus(
    config: ModelConfig,
    cards: Sequence[int],
    *,
    weight_format: str,
    linear_format: str,
    share: float,
    positions: int,
) -> GpuPlan:
    """For cards of so many bytes. `positions`: of keys and values at the least."""
    rooms = [int(share * size) for size in cards]
    position = kv_position_bytes(config, "auto", "bf16")
    contents = Contents(
        config=config,
        experts=weight_format,
        linears=linear_format,
        kv_bytes=positions * position,
    )
    shares = share_layers(contents, rooms)
    return GpuPlan(
        weight_format=weight_format,
        linear_format=linear_format,
        layers=shares.layers,
        positions=max(0, shares.left // position),
        left_layers=shares.left_layers,
        left_bytes=shares.left_layers * config.num_experts * piece_bytes(config, weight_format),
        in_process=shares.in_process,
        fits=shares.left >= contents.kv_bytes,
        attention=contents.whole if shares.in_process else contents.attention,
        pool=contents.pool(0),
    )


def plan_formats(
    config: ModelConfig, cards: Sequence[int], *, linear_format: str, share: float, positions: int
) -> list[GpuPlan]:
    """For every format that GPUs hold, the largest first."""
    return [
        plan_gpus(
            config,
            cards,
            weight_format=name,
            linear_format=linear_format,
            share=share,
            positions=positions,
        )
        for name in ON_GPU
    ]


def advice(made: GpuPlan, hop_s: float) -> str:
    """Which part of the model belongs on cards, if not all of it fits. `hop_s`: a round trip."""
    if not made.left_layers or not sum(made.layers):
        return ""
    if hop_s > CHEAP_HOP_S:
        return (
            f"with round trips of {hop_s * 1e6:.0f} us, fill cards with whole layers: a layer on a"
            " card needs none (arithmetic, not measured)"
        )
    return (
        f"with round trips of {hop_s * 1e6:.0f} us, the most used experts of every layer could be"
        " worth more than whole layers (arithmetic, not measured)"
    )


def _span(first: int, count: int) -> str:
    return str(first) if count == 1 else f"{first}-{first + count - 1}"
