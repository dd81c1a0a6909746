"""Float matrices as panels, and rows as integer kernels see them, in readable torch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from moe_model.formats import PANEL
from moe_model.host_memory import empty_bytes
from moe_model.kernels.cpu.ffn import KernelExperts
from moe_model.kernels.cpu.formats import weight_format
from moe_model.kernels.cpu.integer_formats import LEAST_MAGNITUDE
from moe_model.kernels.cpu.packed import PackedMatrix


def pack(weight_OD: Tensor, format: str) -> PackedMatrix:
    """Repack a float matrix on the CPU.

    Raises:
        ValueError: not a matrix, or no such format.
    """
    if weight_OD.dim() != 2 or not weight_OD.is_floating_point() or not weight_OD.numel():
        raise ValueError(
            f"a weight is a float matrix, not {weight_OD.dtype} {list(weight_OD.shape)}"
        )
    weights = weight_format(format)
    outputs, inputs = weight_OD.shape
    padded = F.pad(weight_OD, (0, weights.padded(inputs) - inputs, 0, -outputs % PANEL))
    data = empty_bytes(weights.size_bytes(outputs, inputs))
    panels = weights.pack(padded.view(-1, PANEL, padded.shape[1]))
    data.copy_(panels.view(-1))
    return PackedMatrix(format, outputs, inputs, data)


def alternate(w1_FD: Tensor, w3_FD: Tensor) -> Tensor:
    """[2 * ceil32(F), D]: 32 rows of w1, the same 32 of w3, and so on; zeros where F ends."""
    missing = -w1_FD.shape[0] % PANEL
    halves = [F.pad(w, (0, 0, 0, missing)).view(-1, PANEL, w.shape[1]) for w in (w1_FD, w3_FD)]
    return torch.stack(halves, dim=1).view(-1, w1_FD.shape[1])


def put(experts: KernelExperts, slot: int, w13_HD: Tensor, w2_DF: Tensor) -> None:
    """Pack an expert's matrices, w1 rows first, then w3 rows. Raises ValueError: another shape."""
    if w13_HD.dim() != 2 or w13_HD.shape[0] != 2 * experts.expert_size:
        raise ValueError(f"w13 must be [{2 * experts.expert_size}, D], not {list(w13_HD.shape)}")
    gate_up = pack(alternate(*w13_HD.chunk(2)), experts.format)
    experts.put_packed(slot, gate_up, pack(w2_DF, experts.format))


def coded_rows(rows_TD: Tensor) -> Tensor:
    """bfloat16 rows as int8 and int4 weights meet them, float32: each 128 inputs of a row become
    codes -127..127 of one scale. Groups that are not finite become NaN, those under 2^-96 zero."""
    num_rows, inputs = rows_TD.shape
    groups = F.pad(rows_TD.float(), (0, -inputs % 128)).view(num_rows, -1, 128)
    largest = groups.abs().amax(-1, keepdim=True)
    codes = (groups * (torch.tensor(127.0) / largest)).round() * (largest / 127.0)
    codes = torch.where(largest >= LEAST_MAGNITUDE, codes, 0.0)
    codes = torch.where(largest.isfinite(), codes, torch.nan)
    return codes.view(num_rows, -1)[:, :inputs]
