"""Which formats may a packed weight have? One table; native/format.h has the same ids and sizes.

Weights lie in panels of 32 outputs, each front to back as one thread reads it: for every
`group` of inputs, what `group_bytes` says. Missing outputs and inputs are zeros.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from moe_model.kernels.cpu.fp8_format import pack_fp8, unpack_fp8
from moe_model.kernels.cpu.integer_formats import pack_int4, pack_int8, unpack_int4, unpack_int8

PANEL = 32
KERNEL_NAMES = {"float32": "f32", "bfloat16": "bf16", "fp8": "fp8", "int8": "int8", "int4": "int4"}


@dataclass(frozen=True, kw_only=True)
class WeightFormat:
    """A layout and its two directions.

    Attributes:
        group: inputs are padded to a multiple of this.
        group_bytes: of one group of inputs of one panel.
        row_dtype: what the rows to be multiplied come in.
        pack: [panels, 32, padded inputs] in any float dtype -> uint8 [panels, panel bytes].
        unpack: the inverse, to the float32 numbers that the kernel multiplies with.
    """

    name: str
    id: int
    group: int
    group_bytes: int
    row_dtype: torch.dtype
    pack: Callable[[Tensor], Tensor]
    unpack: Callable[[Tensor], Tensor]

    def padded(self, num_inputs: int) -> int:
        return -(-num_inputs // self.group) * self.group

    def panel_bytes(self, num_inputs: int) -> int:
        return self.padded(num_inputs) // self.group * self.group_bytes

    def size_bytes(self, num_outputs: int, num_inputs: int) -> int:
        """Of a whole packed matrix."""
        return -(-num_outputs // PANEL) * self.panel_bytes(num_inputs)


def _pack_bf16(weight_POD: Tensor) -> Tensor:
    """[inputs / 2][32][2] bfloat16."""
    panels, outputs, inputs = weight_POD.shape
    pairs = weight_POD.to(torch.bfloat16).view(panels, outputs, inputs // 2, 2)
    return pairs.transpose(1, 2).contiguous().view(torch.uint8).view(panels, -1)


def _unpack_bf16(data_PB: Tensor) -> Tensor:
    pairs = data_PB.view(torch.bfloat16).view(data_PB.shape[0], -1, PANEL, 2)
    return pairs.transpose(1, 2).float().reshape(data_PB.shape[0], PANEL, -1)


def _pack_f32(weight_POD: Tensor) -> Tensor:
    """[inputs][32] float32."""
    transposed = weight_POD.float().transpose(1, 2).contiguous()
    return transposed.view(torch.uint8).view(weight_POD.shape[0], -1)


def _unpack_f32(data_PB: Tensor) -> Tensor:
    columns = data_PB.view(torch.float32).view(data_PB.shape[0], -1, PANEL)
    return columns.transpose(1, 2).contiguous()


BF16 = WeightFormat(
    name="bf16", id=0, group=2, group_bytes=2 * PANEL * 2, row_dtype=torch.bfloat16,
    pack=_pack_bf16, unpack=_unpack_bf16,
)  # fmt: skip
F32 = WeightFormat(
    name="f32", id=1, group=1, group_bytes=PANEL * 4, row_dtype=torch.float32,
    pack=_pack_f32, unpack=_unpack_f32,
)  # fmt: skip
INT8 = WeightFormat(
    name="int8", id=2, group=128, group_bytes=PANEL * 4 + 128 * PANEL, row_dtype=torch.bfloat16,
    pack=pack_int8, unpack=unpack_int8,
)  # fmt: skip
INT4 = WeightFormat(
    name="int4", id=3, group=32, group_bytes=PANEL * 2 + 32 * PANEL // 2, row_dtype=torch.bfloat16,
    pack=partial(pack_int4, group=32), unpack=partial(unpack_int4, group=32),
)  # fmt: skip
INT4_G128 = WeightFormat(
    name="int4_g128", id=4, group=128, group_bytes=PANEL * 2 + 128 * PANEL // 2,
    row_dtype=torch.bfloat16, pack=partial(pack_int4, group=128),
    unpack=partial(unpack_int4, group=128),
)  # fmt: skip
FP8 = WeightFormat(
    name="fp8", id=5, group=128, group_bytes=PANEL * 4 + 128 * PANEL, row_dtype=torch.bfloat16,
    pack=pack_fp8, unpack=unpack_fp8,
)  # fmt: skip

FORMATS = {weights.name: weights for weights in (BF16, F32, INT8, INT4, INT4_G128, FP8)}


def weight_format(name: str) -> WeightFormat:
    """By its name.

    Raises:
        ValueError: there is none, saying which there are.
    """
    if name not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {name!r}")
    return FORMATS[name]
