"""What do int8 and int4 weights look like? Packing and unpacking in plain torch, the reference.

native/pack_int4.cpp does the same, bit for bit and faster. Weights are code times scale; a group
whose largest magnitude is under 2^-96 becomes zeros.
"""

import torch
from torch import Tensor

from moe_model.formats import PANEL

LEAST_MAGNITUDE = 2.0**-96
MOST_MAGNITUDE = 2.0**96
"""Larger weights are refused: their codes' sums could leave float32."""
_INT8_REACH = torch.tensor(127.0)  # a tensor: torch divides a plain number by way of the reciprocal
INT4_REACHES = (6.8, 7.1, 7.4, 7.7, 8.0, 8.3, 8.6, 8.9)
"""Steps tried from zero to a group's largest number; codes end at -8 and 7."""


def pack_int8(weight_POD: Tensor) -> Tensor:
    """Per 128 inputs: float32 scale[32], then code + 128, uint8 [32 quads][32 outputs][4].

    [panels, 32, inputs] -> uint8 [panels, bytes]; the largest magnitude of a group becomes 127.
    """
    panels = weight_POD.shape[0]
    groups = weight_POD.float().view(panels, PANEL, -1, 128)
    largest = _checked(groups.abs().amax(-1, keepdim=True))
    kept = largest >= LEAST_MAGNITUDE
    inverse = torch.where(kept, _INT8_REACH / largest, 0.0)
    codes = (groups * inverse).round().add_(128).to(torch.uint8)
    scales = torch.where(kept, largest / 127.0, 0.0).squeeze(-1).transpose(1, 2).contiguous()
    quads = codes.view(panels, PANEL, -1, 32, 4).permute(0, 2, 3, 1, 4)
    return _joined(scales, quads.reshape(panels, -1, 128 * PANEL))


def unpack_int8(data_PB: Tensor) -> Tensor:
    """float32 [panels, 32, inputs]."""
    panels = data_PB.shape[0]
    groups = data_PB.view(panels, -1, PANEL * 4 + 128 * PANEL)
    scales = groups[..., : PANEL * 4].contiguous().view(torch.float32)
    codes = groups[..., PANEL * 4 :].reshape(panels, -1, 32, PANEL, 4).permute(0, 3, 1, 2, 4)
    values = (codes.float() - 128).reshape(panels, PANEL, -1, 128)
    return (values * scales.transpose(1, 2)[..., None]).reshape(panels, PANEL, -1)


def pack_int4(weight_POD: Tensor, group: int) -> Tensor:
    """Per `group` inputs: bfloat16 scale[32], then code + 8 as nibbles [quads][16 outputs][4].

    A byte's low nibble belongs to output o, its high one to o + 16. Of each group: the code -8 is
    put near the largest number, sign included, at one of INT4_REACHES; of those, with the scale
    that fits the codes best (least squares), the one with the least squared error.
    """
    panels = weight_POD.shape[0]
    weight = weight_POD.float().view(panels, PANEL, -1, group)
    codes, scales = best_codes(weight)
    nibbles = (codes + 8).to(torch.uint8).view(panels, PANEL, -1, group // 4, 4)
    low, high = nibbles.permute(0, 2, 3, 1, 4).split(16, dim=3)
    both = (low | high << 4).reshape(panels, -1, group * PANEL // 2)
    return _joined(scales.transpose(1, 2).contiguous(), both)


def split_int4(data_PB: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Codes plus 8, uint8 [panels, 32, inputs], and bfloat16 scales [panels, 32, groups]."""
    panels = data_PB.shape[0]
    groups = data_PB.view(panels, -1, PANEL * 2 + group * PANEL // 2)
    scales = groups[..., : PANEL * 2].contiguous().view(torch.bfloat16)
    both = groups[..., PANEL * 2 :].reshape(panels, -1, group // 4, 16, 4)
    nibbles = torch.cat((both & 0x0F, both >> 4), dim=3)
    return nibbles.permute(0, 3, 1, 2, 4).reshape(panels, PANEL, -1), scales.transpose(1, 2)


def unpack_int4(data_PB: Tensor, group: int) -> Tensor:
    """float32 [panels, 32, inputs]."""
    nibbles_POD, scales_POG = split_int4(data_PB, group)
    codes = nibbles_POD.float().view(*scales_POG.shape, group) - 8
    return (codes * scales_POG.float()[..., None]).view(nibbles_POD.shape)


def best_codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes -8..7 as float32 [..., group] and bfloat16 scales [...].

    Sums run over the inputs one after another, so that native code gives the same bits.
    """
    top, bottom = weight.amax(-1, keepdim=True), weight.amin(-1, keepdim=True)
    largest = _checked(torch.maximum(top, -bottom).abs())
    kept = largest >= LEAST_MAGNITUDE
    unit = weight * torch.where(kept, 1.0 / largest, 0.0)
    sign = torch.where(top >= -bottom, -1.0, 1.0)
    best_gain = torch.full_like(largest, -1.0)
    best_codes, best_scale = torch.zeros_like(weight), torch.zeros_like(largest)
    for reach in INT4_REACHES:
        codes = (unit * (sign * reach)).round().clamp_(-8, 7)
        cross, square = torch.zeros_like(largest), torch.zeros_like(largest)
        for i in range(weight.shape[-1]):
            code = codes[..., i : i + 1]
            cross = cross + unit[..., i : i + 1] * code
            square = square + code * code
        scale = torch.where(kept, cross / square, 0.0)
        gain = scale * cross
        better = gain > best_gain
        best_gain = torch.where(better, gain, best_gain)
        best_scale = torch.where(better, scale, best_scale)
        best_codes = torch.where(better, codes, best_codes)
    return best_codes, (best_scale * largest).squeeze(-1).bfloat16()


def _checked(largest: Tensor) -> Tensor:
    if not bool((largest <= MOST_MAGNITUDE).all()):
        raise ValueError("integer formats take finite weights up to 2^96")
    return largest


def _joined(scales_PGO: Tensor, codes_PGB: Tensor) -> Tensor:
    """Each group's scales, then its codes: uint8 [panels, bytes]."""
    head = scales_PGO.view(torch.uint8).view(*codes_PGB.shape[:2], -1)
    return torch.cat((head, codes_PGB), dim=-1).view(codes_PGB.shape[0], -1)
