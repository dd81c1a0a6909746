"""Sums along a row that add in the same order whatever other rows there are.

On a CPU torch's own are such. On other devices it gives a row more or fewer threads by how many
rows there are, and so another order: there every sum is of operators that know no order.
"""

import torch
from torch import Tensor


def row_sums(values: Tensor) -> Tensor:
    """Of the last dimension."""
    return values.sum(dim=-1) if values.is_cpu else halved_sums(values)


def running_sums(values_BC: Tensor) -> Tensor:
    """Inclusive, along a row."""
    return values_BC.cumsum(dim=-1) if values_BC.is_cpu else doubled_running_sums(values_BC)


def halved_sums(values: Tensor) -> Tensor:
    """One half is added to the other until one number is left."""
    while values.shape[-1] > 1:
        half = 1 << (values.shape[-1] - 1).bit_length() - 1
        low, high = values.split([half, values.shape[-1] - half], dim=-1)
        added = low[..., : high.shape[-1]] + high
        rest = low[..., high.shape[-1] :]
        values = torch.cat([added, rest], dim=-1) if rest.shape[-1] else added
    return values[..., 0]


def doubled_running_sums(values_BC: Tensor) -> Tensor:
    """Each adds what lies 1, 2, 4, ... before it."""
    found_BC, apart = values_BC, 1
    while apart < values_BC.shape[-1]:
        found_BC = torch.cat(
            [found_BC[:, :apart], found_BC[:, apart:] + found_BC[:, :-apart]], dim=-1
        )
        apart *= 2
    return found_BC
