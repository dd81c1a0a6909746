"""How many whole layers of experts does each card hold, beside attention and its KV cache?

The same answer for `expertmesh up`, which starts pools so, and for `expertmesh plan --gpus`. The
card with attention is filled last: its room is for the context.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from moe_model.config import ModelConfig
from moe_model.formats import piece_bytes
from moe_model.memory_need import MemoryNeed, attention_need, pool_need
from moe_model.workspace import USUAL_STEPS, Steps
from rpc.config import max_rows_per_message

DEFAULT_POSITIONS = 32_768
"""For so many there are keys and values, before layers take the room."""
_GPU = "cuda"


@dataclass(frozen=True, kw_only=True)
class CardShares:
    """`layers`: on each card. `left`: bytes for keys and values on the first one."""

    layers: tuple[int, ...]
    left_layers: int
    left: int
    in_process: bool = False
    """The first card has all of them, in the process of attention."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What cards are to hold: formats, and bytes of keys and values at the least."""

    config: ModelConfig
    experts: str
    linears: str
    kv_bytes: int
    compute_dtype: str = "bf16"
    kv_dtype: str = "auto"
    steps: Steps = USUAL_STEPS

    @property
    def attention(self) -> MemoryNeed:
        return self._attention("")

    @property
    def whole(self) -> MemoryNeed:
        """Of an attention service that holds all experts."""
        return self._attention(self.experts)

    def pool(self, num_layers: int) -> MemoryNeed:
        num_experts = self.config.num_experts
        return pool_need(
            self.config,
            self.experts,
            _GPU,
            num_pieces=num_layers * num_experts,
            most_in_a_layer=num_experts,
            most_rows=max_rows_per_message(self.config.hidden_size, self.config.top_k),
        )

    def _attention(self, experts: str) -> MemoryNeed:
        return attention_need(
            self.config,
            _GPU,
            compute_dtype=self.compute_dtype,
            linears=self.linears,
            experts=experts,
            kv_dtype=self.kv_dtype,
            steps=self.steps,
        )


def share_layers(
    contents: Contents,
    rooms: Sequence[int],
    *,
    has_attention: bool = True,
    may_join: bool = True,
) -> CardShares:
    """For cards that services may fill with so many bytes.

    Args:
        has_attention: the first card has attention; else no card has.
        may_join: attention may hold all experts, if they fit the first card.
    """
    num_layers, kv_bytes = contents.config.num_layers, contents.kv_bytes
    whole = contents.whole.fixed
    if has_attention and may_join and whole + kv_bytes <= rooms[0]:
        return CardShares(
            layers=(num_layers, *(0 for _ in rooms[1:])),
            left_layers=0,
            left=rooms[0] - whole,
            in_process=True,
        )
    attention = contents.attention.fixed if has_attention else 0
    taken = [attention + kv_bytes if has_attention else 0, *(0 for _ in rooms[1:])]
    layer = contents.config.num_experts * piece_bytes(contents.config, contents.experts, _GPU)
    left_layers, layers = num_layers, [0] * len(rooms)
    for card in (*range(1, len(rooms)), 0) if has_attention else range(len(rooms)):
        room = rooms[card] - taken[card] - contents.pool(0).fixed
        layers[card] = min(left_layers, max(0, room // layer))
        left_layers -= layers[card]
    pool = contents.pool(layers[0]).fixed if layers[0] else 0
    return CardShares(
        layers=tuple(layers), left_layers=left_layers, left=rooms[0] - attention - pool
    )
