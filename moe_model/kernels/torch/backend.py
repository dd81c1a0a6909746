"""How do torch (any device) and oneDNN (CPUs) compute? Faster backends build on this."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moe_model.config import ModelConfig
from moe_model.gpus import architecture
from moe_model.kernels.cpu.experts import UnpackedExperts
from moe_model.kernels.cpu.packing import pack_linear
from moe_model.kernels.torch.experts import OneDnnExperts
from moe_model.maths.expert_calls import ExpertCalls, PlainCalls
from moe_model.maths.experts import ExpertWeights, HeldExperts
from moe_model.maths.kv_layout import Int8Layout, KVLayout, KvPages, PlainLayout
from moe_model.maths.layer import Layer, LayerWeights, PlainLayer
from moe_model.maths.layer_steps import PlainSteps, Steps
from moe_model.maths.linear import LinearWeight, can_pack, pack
from moe_model.maths.linears import Linears, PlainLinears
from moe_model.maths.paged_attention import PagedAttention, TorchAttention
from moe_model.maths.row_maths import TORCH, RowMaths
from moe_model.maths.whole_steps import OuterWeights, Pick, WholeSteps
from moe_model.numerics import DTYPES, Numerics
from moe_model.quant import StoredMatrix


class TorchBackend:
    """See moe_model/backends/backend.py. Subclasses have kernels for some of it."""

    rows: RowMaths = TORCH

    def __init__(self, dtype: torch.dtype, device: torch.device, why: str = ""):
        self.dtype, self.device, self.why = dtype, device, why

    def numerics(self, weight_format: str) -> Numerics:
        kernel, isa = "torch", torch.backends.cpu.get_cpu_capability().lower().replace(" ", "-")
        if self.device.type == "cuda":
            isa = architecture(self.device)
        elif weight_format == "bf16" and can_pack(self.dtype, self.device):
            kernel = "onednn"
        version = torch.__version__.split("+")[0]
        return Numerics(
            weight_format=weight_format, kernel=f"{kernel}-{version}", isa=isa, why=self.why
        )

    def set_threads(self, num_threads: int) -> int:
        if num_threads:
            torch.set_num_threads(num_threads)
        return torch.get_num_threads()

    def linears(self, weight_format: str) -> Linears:
        self._check_held(weight_format)
        return TorchLinears(self.dtype, weight_format, self.device)

    def room_for_experts(
        self, num_held: int, config: ModelConfig, weight_format: str
    ) -> HeldExperts:
        self._check_held(weight_format)
        if weight_format not in DTYPES:  # in panels, widened on every call: slow
            return UnpackedExperts(num_held, config, weight_format)
        if can_pack(self.dtype, self.device):
            return OneDnnExperts(num_held)
        return ExpertWeights.room(
            num_held, config.hidden_size, config.expert_size, self.dtype, self.device
        )

    def expert_calls(self, config: ModelConfig, weight_format: str) -> ExpertCalls:
        return PlainCalls(config, self.device)

    def _check_held(self, weight_format: str) -> None:
        """Raises ValueError: on other devices than CPUs torch alone holds no codes."""
        if weight_format not in DTYPES and self.device.type != "cpu":
            why = self.why or f"on {self.device.type} only its kernels read them"
            raise ValueError(f"{weight_format} weights cannot be held here: {why}")

    def hold_layer(self, held: LayerWeights, config: ModelConfig) -> Layer:
        return PlainLayer(held, config)

    def kv_layout(self, kv_dtype: str, config: ModelConfig, block_size: int) -> KVLayout:
        if kv_dtype == "int8":
            return Int8Layout(config.num_kv_heads, config.head_dim)
        return PlainLayout.of(config, torch.bfloat16 if kv_dtype == "bf16" else self.dtype)

    def attention(self, config: ModelConfig, cache: KvPages) -> PagedAttention:
        return TorchAttention(cache)

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
        return None

    def steps(self, layers: Sequence[Layer], cache: KvPages, attention: PagedAttention) -> Steps:
        return PlainSteps(layers, cache, attention, self.rows)


@dataclass(frozen=True)
class TorchLinears:
    """Plain tensors, for bfloat16 on CPUs in oneDNN's layout."""

    dtype: torch.dtype
    weight_format: str
    device: torch.device

    def make(self, parts: Sequence[StoredMatrix]) -> LinearWeight:
        if self.weight_format not in DTYPES:
            return pack_linear(parts, self.weight_format)
        return pack(PlainLinears(self.dtype).make(parts).to(self.device))

    def make_routing(self, stored: StoredMatrix) -> Tensor:
        return stored.to(torch.float32).to(self.device)
