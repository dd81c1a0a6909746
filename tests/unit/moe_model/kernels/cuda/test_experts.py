"""Experts computed by the Triton kernels against float64, at small odd sizes."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moe_model.config import ModelConfig
from moe_model.kernels.cuda.codes import decode
from moe_model.kernels.cuda.experts import CudaExperts, tilings
from moe_model.maths.experts import run_experts
from moe_model.quant import StoredExpert, StoredMatrix, quantise
from tests.support.moe_model.toy_family import TOY_CONFIG, parse_config

HIDDEN, EXPERT, NUM_EXPERTS = 40, 24, 5


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    sizes = {"width": HIDDEN, "part_width": EXPERT, "parts": NUM_EXPERTS}
    return parse_config({**TOY_CONFIG, **sizes})


def matrix(outputs: int, inputs: int, seed: int, *, fp8: bool) -> StoredMatrix:
    values = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed)) / 8
    if not fp8:
        return StoredMatrix(values=values, scales=None, block=(1, 1), where="w")
    codes, scales = quantise(values)
    return StoredMatrix(values=codes, scales=scales, block=(128, 128), where="w")


def experts(config: ModelConfig, name: str, device: torch.device) -> CudaExperts:
    held = CudaExperts(NUM_EXPERTS, config, name, device)
    for slot in range(NUM_EXPERTS):
        one, three = (matrix(EXPERT, HIDDEN, 3 * slot + i, fp8=name == "fp8") for i in range(2))
        held.put(slot, StoredExpert(w1=one, w3=three, w2=matrix(HIDDEN, EXPERT, slot, fp8=False)))
    return held


def expected_row(held: CudaExperts, row_D: Tensor, ids_K: Tensor, weights_K: Tensor) -> Tensor:
    """float64, rounded where the definition rounds."""
    total = torch.zeros(HIDDEN, dtype=torch.float64)
    shapes = ((EXPERT, HIDDEN), (EXPERT, HIDDEN), (HIDDEN, EXPERT))
    for slot, weight in zip(ids_K.tolist(), weights_K, strict=True):
        parts = zip(held.get(slot), shapes, strict=True)
        w1, w3, w2 = (decode(coded, *shape).double().cpu() for coded, shape in parts)
        gate, up = w1 @ row_D.double(), w3 @ row_D.double()
        activated = (F.silu(gate) * up).bfloat16().double()
        total += (w2 @ activated * weight.double()).bfloat16().double()
    return total


@pytest.mark.parametrize(
    "name", ["bf16", "fp8", "int4_g128", pytest.param("int4", marks=pytest.mark.slow)]
)
def test_sums_are_those_of_the_decoded_weights(
    config: ModelConfig, name: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pair a tile of its own, and pairs grouped by expert."""
    held = experts(config, name, device)
    generator = torch.Generator().manual_seed(7)
    for ids, few in (([[0, 3]], 16), ([[2, 4], [2, 3], [0, 2]], 0)):
        monkeypatch.setattr("moe_model.kernels.cuda.experts._FEW_PAIRS", few)
        ids_TK = torch.tensor(ids, dtype=torch.int32)
        rows_TD = torch.randn(len(ids), HIDDEN, generator=generator).bfloat16()
        weights_TK = torch.rand(len(ids), 2, generator=generator)
        out_TD = torch.full((len(ids), HIDDEN), float("nan"), device=device)
        here = [x.to(device) for x in (rows_TD, ids_TK, weights_TK)]
        held.routed_sums(*here, out_TD)
        for t in (0, len(ids) - 1):
            expected = expected_row(held, rows_TD[t], ids_TK[t], weights_TK[t])
            error = (out_TD[t].double().cpu() - expected).norm() / expected.norm()
            assert error < 2e-2, (name, ids, t)
        assert torch.equal(run_experts(*here, held), out_TD)


def test_a_rows_bits_depend_on_no_other_row(config: ModelConfig, device: torch.device) -> None:
    """Of nine rows pairs are grouped, for one expert in two tiles; of one row they are not."""
    held = experts(config, "fp8", device)
    ids_TK = torch.tensor([[1, 3]] * 8 + [[0, 1]], dtype=torch.int32, device=device)
    rows_TD = torch.randn(9, HIDDEN).bfloat16().to(device)
    weights_TK = torch.rand(9, 2).to(device)
    together, alone = torch.empty(9, HIDDEN, device=device), torch.empty(1, HIDDEN, device=device)
    held.routed_sums(rows_TD, ids_TK, weights_TK, together)
    held.routed_sums(rows_TD[8:], ids_TK[8:], weights_TK[8:], alone)
    assert torch.equal(alone[0], together[8])


def test_rows_come_in_the_order_of_their_pairs_and_slots_may_be_missing(
    config: ModelConfig, device: torch.device
) -> None:
    """As a pool gets them: of each row only the experts that it holds."""
    held = experts(config, "bf16", device)
    rows_ND = torch.randn(3, HIDDEN).bfloat16().to(device)
    row_of_pair_M = torch.tensor([0, 0, 2], device=device)
    slots_M, weights_M = torch.tensor([1, 4, 0], device=device), torch.rand(3).to(device)
    rows_MD = held.rows(rows_ND, row_of_pair_M, slots_M, weights_M)
    sums_ND = held.sums(rows_ND, row_of_pair_M, slots_M, weights_M)
    assert torch.equal(sums_ND[0], rows_MD[0].float() + rows_MD[1].float())
    assert not sums_ND[1].any()
    assert torch.equal(sums_ND[2], rows_MD[2].float())


def test_a_moved_expert_computes_as_before(config: ModelConfig, device: torch.device) -> None:
    first = experts(config, "int4_g128", device)
    second = CudaExperts(1, config, "int4_g128", device)
    second.move(0, first, 3)
    assert all(
        torch.equal(one.codes, other.codes) and torch.equal(one.scales, other.scales)
        for one, other in zip(first.get(3), second.get(0), strict=True)
    )


def test_tiles_of_plain_numbers_take_at_most_two_warps() -> None:
    """With four Triton takes another matrix instruction, whose bits were compared for codes."""
    for bits in (4, 8, 16):
        for num_pairs in (1, 8, 64, 512, 70_000):
            for tiling in tilings(bits, num_pairs, 256, wide=True):
                assert tiling.warps <= 2 or (bits < 16 and tiling.outputs >= 64)
                assert tiling.outputs >= 16 * tiling.warps


def test_tiles_are_wide_only_where_they_fit() -> None:
    assert all(tiling.rows <= 64 for tiling in tilings(8, 1 << 20, 4, wide=False))
    assert all(tiling.rows <= 64 for tiling in tilings(16, 1 << 20, 4, wide=True))
    assert all(tiling.rows == 128 for tiling in tilings(4, 1 << 20, 4, wide=True))
