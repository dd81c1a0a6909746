"""A row's sums have the same bits in every batch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from attention_svc.sampling.candidates import block_maxima, block_sums
from attention_svc.sampling.drawing import CANDIDATES, Columns, pick
from attention_svc.sampling.fixed_order import (
    doubled_running_sums,
    halved_sums,
    row_sums,
    running_sums,
)
from attention_svc.sampling.logprobs import RawDistribution

on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DEVICES = ["cpu", pytest.param("cuda", marks=on_gpu)]
VOCABULARY = 20_064


@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=70))
def test_sums_by_halves_and_by_doubling_are_the_sums(numbers: list[int]) -> None:
    values = torch.tensor([numbers, numbers[::-1]], dtype=torch.float64)
    assert torch.equal(halved_sums(values), values.sum(dim=-1))
    assert torch.equal(doubled_running_sums(values), values.cumsum(dim=-1))
    assert torch.equal(halved_sums(values[:, None]), values.sum(dim=-1)[:, None])


def wild(rows: int, columns: int) -> Tensor:
    """Numbers whose sum depends on the order."""
    return (20 * torch.randn((rows, columns), dtype=torch.float64)).exp()


@pytest.mark.parametrize("columns", [1, 64, 256, 313, 2048])
def test_sums_by_operators_have_the_same_bits_alone(columns: int) -> None:
    values = wild(64, columns)
    for add in (halved_sums, doubled_running_sums):
        whole = add(values)
        for row in (0, 31, 63):
            assert torch.equal(add(values[row : row + 1])[0], whole[row])


@pytest.mark.parametrize("device", DEVICES)
def test_a_row_alone_has_the_bits_that_it_has_among_others(device: str) -> None:
    values = wild(64, 256).to(device)
    logits = (3 * torch.randn((64, VOCABULARY))).to(device)
    shares = logits.exp()
    tops = [3] * 64
    told = RawDistribution(logits, tops, copy=False).of([5] * 64)
    sums, running, masses = row_sums(values), running_sums(values), block_sums(shares)
    for rows in (1, 2, 7, 33):
        part = slice(64 - rows, 64)
        assert torch.equal(row_sums(values[part]), sums[part])
        assert torch.equal(running_sums(values[part]), running[part])
        assert torch.equal(block_sums(shares[part]), masses[part])
        alone = RawDistribution(logits[part], tops[part], copy=False).of([5] * rows)
        assert alone == told[part]


@pytest.mark.parametrize("device", DEVICES)
def test_a_draw_at_the_very_border_is_the_same_alone(device: str) -> None:
    """Its random number is a share's end, which the last bit of a sum decides."""
    logits = (3 * torch.randn((64, VOCABULARY))).to(device)
    maxima = block_maxima(logits)
    columns = torch.tensor([1.0, 200.0, float("inf"), 0.0, 0.5], dtype=torch.float64)
    columns = columns.expand(64, 5).clone()
    ranks = logits.topk(200).values.double().cpu()
    ends = running_sums((ranks - ranks[:, :1]).exp())
    columns[:, 4] = ends[torch.arange(64), torch.arange(64)] / ends[:, -1]
    given = columns.T[:, :, None].to(device)

    def drawn(part: slice) -> Tensor:
        controls = Columns(*given[:, part])
        no_mass = torch.zeros_like(controls.temperature)
        return pick(logits[part], maxima[part], controls, no_mass, CANDIDATES[0])[0]

    whole = drawn(slice(0, 64))
    for row in range(64):
        assert torch.equal(drawn(slice(row, row + 1)), whole[row : row + 1])
