"""What do the native kernels compute on this CPU? bfloat16 rows; torch does the rest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from moe_model.config import ModelConfig
from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.attention import can_attend, takes_tiles
from moe_model.kernels.cpu.experts import NativeExperts
from moe_model.kernels.cpu.formats import FORMATS
from moe_model.kernels.cpu.layer import NativeLayer, hold_layer
from moe_model.kernels.cpu.packed import PackedMatrix
from moe_model.kernels.cpu.packing import pack_linear
from moe_model.kernels.cpu.paged_rows import NativeAttention, TiledLayout, paged_rows
from moe_model.kernels.cpu.rows import NativeRows
from moe_model.kernels.cpu.step import MOST_ROWS, NativeSteps
from moe_model.kernels.torch.backend import TorchBackend
from moe_model.maths.experts import HeldExperts
from moe_model.maths.kv_layout import KVLayout, KvPages
from moe_model.maths.layer import Layer, LayerWeights
from moe_model.maths.layer_steps import LayerSteps, Steps
from moe_model.maths.linears import Linears
from moe_model.maths.paged_attention import PagedAttention
from moe_model.maths.step_meta import StepMeta
from moe_model.numerics import Numerics
from moe_model.quant import StoredMatrix


class CpuBackend(TorchBackend):
    """See moe_model/backends/backend.py."""

    rows = NativeRows()

    @staticmethod
    def why_not(dtype: torch.dtype) -> str:
        """Why it is not available; empty when it is. Raises what `library.load` does."""
        if dtype != torch.bfloat16:
            return "the native kernels take bfloat16 rows"
        return "" if library.load() is not None else library.why_not()

    def numerics(self, weight_format: str) -> Numerics:
        native = library.need()
        if not self._has_kernel(weight_format):
            why = f"no native kernel for {weight_format} on {native.isa}"
            return replace(super().numerics(weight_format), why=why)
        return Numerics(
            weight_format=weight_format, kernel=f"native-{native.version}", isa=native.isa
        )

    def set_threads(self, num_threads: int) -> int:
        """Of torch and of the native kernels, which never compute at the same time."""
        native = library.need()
        if num_threads:
            try:
                native.set_threads(num_threads)
            except RuntimeError as error:
                why = "is there a limit on processes or memory?"
                raise ValueError(f"--threads {num_threads}: {error} ({why})") from None
        super().set_threads(num_threads)
        return native.num_threads

    def linears(self, weight_format: str) -> Linears:
        return PanelLinears(self.dtype, weight_format)

    def room_for_experts(
        self, num_held: int, config: ModelConfig, weight_format: str
    ) -> HeldExperts:
        if self._has_kernel(weight_format):
            return NativeExperts(num_held, config, weight_format)
        return super().room_for_experts(num_held, config, weight_format)

    def hold_layer(self, held: LayerWeights, config: ModelConfig) -> Layer:
        return hold_layer(held, config)

    def kv_layout(self, kv_dtype: str, config: ModelConfig, block_size: int) -> KVLayout:
        if kv_dtype != "int8" and takes_tiles(self.dtype, *_heads(config), block_size):
            return TiledLayout(config.num_kv_heads, config.head_dim)
        return super().kv_layout(kv_dtype, config, block_size)

    def attention(self, config: ModelConfig, cache: KvPages) -> PagedAttention:
        if can_attend(self.dtype, cache.layout.dtype, *_heads(config)):
            return NativeAttention(cache, config.num_kv_heads)
        return super().attention(config, cache)

    def steps(self, layers: Sequence[Layer], cache: KvPages, attention: PagedAttention) -> Steps:
        plain = super().steps(layers, cache, attention)
        native = [layer for layer in layers if isinstance(layer, NativeLayer)]
        if not isinstance(cache.layout, TiledLayout) or len(native) < len(layers):
            return plain
        pages = [cache.pages(layer_idx) for layer_idx in range(len(layers))]
        return _FewRowsAtOnce(NativeSteps(native, pages), plain)

    def _has_kernel(self, weight_format: str) -> bool:
        return FORMATS[weight_format].id in library.need().format_ids


@dataclass(frozen=True)
class PanelLinears:
    """In the kernels' panels."""

    dtype: torch.dtype
    weight_format: str

    def make(self, parts: Sequence[StoredMatrix]) -> PackedMatrix:
        return pack_linear(parts, self.weight_format)

    def make_routing(self, stored: StoredMatrix) -> PackedMatrix:
        # So that routing is as independent of other rows as the linears are.
        return pack_linear([stored], "f32")


@dataclass(frozen=True)
class _FewRowsAtOnce:
    """Steps of a few rows in room made in advance; the others layer by layer."""

    native: NativeSteps
    plain: Steps

    def warm_up(self, most_rows: int, most_decode: int) -> Iterator[int]:
        return iter(())

    def is_ready(self, meta: StepMeta) -> bool:
        return True

    def begin(self, hidden_TD: Tensor, cos_T: Tensor, sin_T: Tensor, meta: StepMeta) -> LayerSteps:
        if meta.num_rows > MOST_ROWS:
            return self.plain.begin(hidden_TD, cos_T, sin_T, meta)
        return self.native.begin(hidden_TD, cos_T, sin_T, meta.slot_mapping_T, paged_rows(meta))


def _heads(config: ModelConfig) -> tuple[int, int, int]:
    return config.num_heads, config.num_kv_heads, config.head_dim
