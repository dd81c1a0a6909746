"""The search of int4's codes and scales in a kernel is the CPU's, bit for bit."""

import pytest
import torch

from moe_model.kernels.cpu.integer_formats import LEAST_MAGNITUDE, MOST_MAGNITUDE
from moe_model.kernels.cuda.codes import FORMATS, encode
from moe_model.kernels.cuda.packing import pack_int4
from moe_model.quant import StoredMatrix, quantise

CPU = torch.device("cpu")


def stored(values: torch.Tensor, block: tuple[int, int] | None = None) -> StoredMatrix:
    if block is None:
        return StoredMatrix(values=values, scales=None, block=(1, 1), where="file: tensor")
    codes, scales = quantise(values, *block)
    return StoredMatrix(values=codes, scales=scales, block=block, where="file: tensor")


def on(matrix: StoredMatrix, device: torch.device) -> StoredMatrix:
    scales = None if matrix.scales is None else matrix.scales.to(device)
    return StoredMatrix(
        values=matrix.values.to(device), scales=scales, block=matrix.block, where=matrix.where
    )


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


CASES = {
    "int4 of float32 with missing outputs and inputs": stored(normal(35, 90)),
    "int4_g128 of float32 with missing outputs and inputs": stored(normal(35, 150)),
    "int4 of bfloat16": stored(normal(3, 70).bfloat16()),
    "int4_g128 of float16": stored(normal(3, 33).half()),
    "int4_g128 of float64": stored(normal(3, 32).double()),
    "int4 of E4M3 in blocks": stored(normal(40, 90), (16, 48)),
    "int4_g128 of E4M3 in blocks": stored(normal(40, 90), (16, 48)),
    "int4 of E4M3 without scales": stored(normal(5, 60).to(torch.float8_e4m3fn)),
    "int4 of ties between reaches": stored(torch.eye(33, 99) - 2 * torch.eye(33, 99).roll(5, 1)),
    "int4_g128 of halves": stored((torch.arange(32 * 128) % 17 - 8).view(32, 128) / 2),
    "int4 of magnitudes around the least": stored(
        normal(32, 64) * LEAST_MAGNITUDE * torch.tensor([0.1, 1.0]).repeat_interleave(32)
    ),
    "int4_g128 of the largest magnitudes": stored(normal(2, 64).clamp(-1, 1) * MOST_MAGNITUDE),
}


LARGE = ("int4_g128 of float32 with missing outputs and inputs", "int4_g128 of E4M3 in blocks")
"""Seconds of the interpreter's; their formats have smaller cases beside them."""


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.slow if case in LARGE else ()) for case in CASES],
)
def test_words_and_scales_are_those_of_the_search_in_torch(case: str, device: torch.device) -> None:
    format = FORMATS[case.split()[0]]
    expected = encode(CASES[case], format, CPU)
    words, scales = pack_int4(on(CASES[case], device), format.scale_group)
    assert torch.equal(words.cpu(), expected.codes)
    assert torch.equal(scales.cpu().view(torch.int16), expected.scales.view(torch.int16))


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # the interpreter's
@pytest.mark.parametrize("broken", [float("nan"), float("-inf"), 1.01 * MOST_MAGNITUDE])
def test_weights_that_no_code_can_hold_are_refused(broken: float, device: torch.device) -> None:
    values = normal(33, 30)
    values[32, 29] = broken
    with pytest.raises(ValueError, match=r"file: tensor: integer formats take finite weights"):
        pack_int4(on(stored(values), device), 128)


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_products_with_scales_that_are_not_finite_are_refused(device: torch.device) -> None:
    matrix = stored(normal(4, 40), (128, 128))
    assert matrix.scales is not None
    matrix.scales.fill_(3e38)
    with pytest.raises(ValueError, match=r"file: tensor: integer formats take finite weights"):
        pack_int4(on(matrix, device), 32)
