"""How do the formats of moe_model/formats.py lie in panels? Ids and sizes: native/format.h.

Weights lie in panels of 32 outputs, each front to back as one thread reads it: for every
`group` of inputs, what `group_bytes` says. Missing outputs and inputs are zeros.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from moe_model import formats
from moe_model.formats import PANEL, WeightFormat
from moe_model.kernels.cpu.fp8_format import pack_fp8, unpack_fp8
from moe_model.kernels.cpu.integer_formats import pack_int4, pack_int8, unpack_int4, unpack_int8


@dataclass(frozen=True, kw_only=True)
class PanelFormat(WeightFormat):
    """A layout of panels and its two directions.

    Attributes:
        row_dtype: what the rows to be multiplied come in.
        pack: [panels, 32, padded inputs] in any float dtype -> uint8 [panels, panel bytes].
        unpack: the inverse, to the float32 numbers that the kernel multiplies with.
    """

    id: int
    row_dtype: torch.dtype
    pack: Callable[[Tensor], Tensor]
    unpack: Callable[[Tensor], Tensor]


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


def _panels(
    name: str,
    id: int,
    pack: Callable[[Tensor], Tensor],
    unpack: Callable[[Tensor], Tensor],
    row_dtype: torch.dtype = torch.bfloat16,
) -> PanelFormat:
    held = {**vars(formats.FORMATS[name]), "panel": PANEL}  # float32 too lies in panels here
    return PanelFormat(**held, id=id, row_dtype=row_dtype, pack=pack, unpack=unpack)


FORMATS = {
    made.name: made
    for made in (
        _panels("bf16", 0, _pack_bf16, _unpack_bf16),
        _panels("f32", 1, _pack_f32, _unpack_f32, torch.float32),
        _panels("int8", 2, pack_int8, unpack_int8),
        _panels("int4", 3, partial(pack_int4, group=32), partial(unpack_int4, group=32)),
        _panels("int4_g128", 4, partial(pack_int4, group=128), partial(unpack_int4, group=128)),
        _panels("fp8", 5, pack_fp8, unpack_fp8),
    )
}


def weight_format(name: str) -> PanelFormat:
    """By its name.

    Raises:
        ValueError: there is none, saying which there are.
    """
    if name not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {name!r}")
    return FORMATS[name]
