"""What differs by device and kernel? Everything above asks a `Backend`, never which one it is.

docs/backends.md says how to add one.
"""

from collections.abc import Sequence
from typing import Protocol

import torch

from moe_model.config import ModelConfig
from moe_model.maths.expert_calls import ExpertCalls
from moe_model.maths.experts import HeldExperts
from moe_model.maths.kv_layout import KVLayout, KvPages
from moe_model.maths.layer import Layer, LayerWeights
from moe_model.maths.layer_steps import Steps
from moe_model.maths.linears import Linears
from moe_model.maths.paged_attention import PagedAttention
from moe_model.maths.row_maths import RowMaths
from moe_model.maths.whole_steps import OuterWeights, Pick, WholeSteps
from moe_model.numerics import Numerics


class Backend(Protocol):
    """What computes rows of one dtype on one device. Weight formats: moe_model/formats.py."""

    @property
    def dtype(self) -> torch.dtype:
        """The compute dtype: of the rows, the norms and the embedding."""

    @property
    def device(self) -> torch.device: ...

    @property
    def why(self) -> str:
        """Why it is not a faster one; empty when there is none."""

    @property
    def rows(self) -> RowMaths:
        """What a layer does to its rows between the linears, routing included."""

    def numerics(self, weight_format: str) -> Numerics:
        """What computes with weights of a format, and why not a faster kernel."""

    def set_threads(self, num_threads: int) -> int:
        """For a `--threads` flag; 0: all cores. Returns how many compute now.

        Raises:
            ValueError: more than can be started here.
        """

    def linears(self, weight_format: str) -> Linears:
        """Makes a layer's linears in the layout that serves fastest."""

    def room_for_experts(
        self, num_held: int, config: ModelConfig, weight_format: str
    ) -> HeldExperts:
        """Slots for `num_held` experts of a layer."""

    def expert_calls(self, config: ModelConfig, weight_format: str) -> ExpertCalls:
        """What carries the calls of a pool to experts of this format."""

    def hold_layer(self, held: LayerWeights, config: ModelConfig) -> Layer:
        """A layer's attention block, in the form that serves fastest."""

    def kv_layout(self, kv_dtype: str, config: ModelConfig, block_size: int) -> KVLayout:
        """For --kv-dtype: auto (the compute dtype), bf16 or int8."""

    def attention(self, config: ModelConfig, cache: KvPages) -> PagedAttention:
        """What attends to the pages of this cache."""

    def whole_steps(
        self,
        outer: OuterWeights,
        layers: Sequence[Layer],
        experts: Sequence[HeldExperts],
        attention: PagedAttention,
        cache: KvPages,
        missing_ids: Sequence[int],
        pick: Pick,
    ) -> WholeSteps | None:
        """What runs steps without a look at what lies between layers; None: nothing does.

        Args:
            missing_ids: without a token: nobody's best.
            pick: draws where a step has controls.
        """

    def steps(self, layers: Sequence[Layer], cache: KvPages, attention: PagedAttention) -> Steps:
        """What runs a step's rows through these layers; all three were made here."""
