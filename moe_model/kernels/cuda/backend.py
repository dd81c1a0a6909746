"""What do the CUDA kernels compute? bfloat16 rows; torch does the rest.

Triton is needed only where they are used: this module imports it late.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from moe_model.config import ModelConfig
from moe_model.gpus import read_gpus
from moe_model.kernels.cpu.packed import PackedMatrix
from moe_model.kernels.torch.backend import TorchBackend
from moe_model.maths.expert_calls import ExpertCalls
from moe_model.maths.experts import HeldExperts
from moe_model.maths.kv_layout import KvPages
from moe_model.maths.layer import Layer, LayerWeights, PlainLayer
from moe_model.maths.layer_steps import Steps
from moe_model.maths.linear import LinearWeight
from moe_model.maths.linears import Linears
from moe_model.maths.paged_attention import PagedAttention
from moe_model.maths.whole_steps import OuterWeights, Pick, WholeSteps
from moe_model.numerics import Numerics, dtype_name
from moe_model.quant import StoredMatrix

if TYPE_CHECKING:
    from moe_model.kernels.cuda.attention import CudaAttention
    from moe_model.kernels.cuda.step import CudaSteps

VERSION = 4
"""Of the kernels' bits: another number wherever they change."""
HELD = ("bf16", "fp8", "int4", "int4_g128")


class CudaBackend(TorchBackend):
    """See moe_model/backends/backend.py."""

    def __init__(self, dtype: torch.dtype, device: torch.device, why: str = ""):
        super().__init__(dtype, device, why)
        from moe_model.kernels.cuda.rows import CudaRows

        self.rows = CudaRows()

    @staticmethod
    def why_not(dtype: torch.dtype) -> str:
        """Why it is not available; empty when it is."""
        return read_gpus().why_no_kernels(dtype_name(dtype))

    def numerics(self, weight_format: str) -> Numerics:
        found = super().numerics(weight_format)
        if weight_format not in HELD:
            return replace(found, why=f"there is no CUDA kernel for {weight_format}")
        return replace(found, kernel=f"cuda-{VERSION}", why="")

    def linears(self, weight_format: str) -> Linears:
        return CudaLinears(self.dtype, weight_format, self.device)

    def room_for_experts(
        self, num_held: int, config: ModelConfig, weight_format: str
    ) -> HeldExperts:
        if weight_format not in HELD:
            return super().room_for_experts(num_held, config, weight_format)
        from moe_model.kernels.cuda.experts import CudaExperts

        return CudaExperts(num_held, config, weight_format, self.device)

    def expert_calls(self, config: ModelConfig, weight_format: str) -> ExpertCalls:
        if weight_format not in HELD:
            return super().expert_calls(config, weight_format)
        from moe_model.kernels.cuda.graphs.calls import CudaCalls

        return CudaCalls(config, self.device)

    def hold_layer(self, held: LayerWeights, config: ModelConfig) -> Layer:
        return PlainLayer(held, config, self.rows)

    def attention(self, config: ModelConfig, cache: KvPages) -> PagedAttention:
        from moe_model.kernels.cuda.attention import CudaAttention, can_attend

        heads = config.num_heads, config.num_kv_heads
        if can_attend(self.dtype, cache.layout, *heads):
            return CudaAttention(cache, *heads)
        return super().attention(config, cache)

    def steps(self, layers: Sequence[Layer], cache: KvPages, attention: PagedAttention) -> Steps:
        from moe_model.kernels.cuda.attention import CudaAttention
        from moe_model.kernels.cuda.graphs.hop_steps import HopSteps

        if isinstance(attention, CudaAttention):
            steps = self._cuda_steps(layers, cache, attention)
            if steps is not None:
                return HopSteps(steps, attention, self.device)
        return super().steps(layers, cache, attention)

    def _cuda_steps(
        self, layers: Sequence[Layer], cache: KvPages, attention: "CudaAttention"
    ) -> "CudaSteps | None":
        """None: some of it is not in these kernels' layout."""
        from moe_model.kernels.cuda.linear import CudaLinear
        from moe_model.kernels.cuda.step import CudaSteps

        plain = [layer for layer in layers if isinstance(layer, PlainLayer)]
        if len(plain) != len(layers):
            return None
        if not all(isinstance(layer.weights.qkv_AD, CudaLinear) for layer in plain):
            return None
        return CudaSteps(plain, cache, attention)

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
        from moe_model.kernels.cuda.attention import CudaAttention
        from moe_model.kernels.cuda.experts import CudaExperts
        from moe_model.kernels.cuda.graphs.whole import CudaWholeSteps
        from moe_model.kernels.cuda.linear import CudaLinear
        from moe_model.kernels.cuda.model import CudaModel

        held = [one for one in experts if isinstance(one, CudaExperts)]
        if not isinstance(attention, CudaAttention):
            return None
        steps = self._cuda_steps(layers, cache, attention)
        if steps is None:
            return None
        if len(held) != len(layers) or not isinstance(outer.lm_head_VD, CudaLinear):
            return None
        missing = torch.tensor(missing_ids, device=self.device) if missing_ids else None
        model = CudaModel(steps.layers[0].config, outer, steps, held, missing, pick)
        return CudaWholeSteps(model, attention)


@dataclass(frozen=True)
class CudaLinears:
    """In the kernels' words."""

    dtype: torch.dtype
    weight_format: str
    device: torch.device

    def make(self, parts: Sequence[StoredMatrix]) -> LinearWeight:
        from moe_model.kernels.cuda.linear import CudaLinear

        return CudaLinear.of(parts, self.weight_format, self.device)

    def make_routing(self, stored: StoredMatrix) -> LinearWeight:
        from moe_model.kernels.cuda.linear import RoutingMatrix

        return RoutingMatrix.of(stored, self.device)

    def from_panels(self, matrix: PackedMatrix, sizes: Sequence[int]) -> LinearWeight:
        from moe_model.kernels.cuda.linear import CudaLinear, RoutingMatrix

        made = CudaLinear.from_panels(matrix, sizes, self.device)
        return RoutingMatrix(made) if matrix.format == "f32" else made
