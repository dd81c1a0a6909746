"""Calls to a layer's experts: filled up, unpacked in place, one after the other."""

import contextlib
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from moe_model.config import ModelConfig
from moe_model.kernels.cuda.experts import CudaExperts
from moe_model.kernels.cuda.graphs.calls import CudaCalls
from moe_model.maths.expert_calls import CallRows
from moe_model.quant import StoredExpert, StoredMatrix
from tests.support.moe_model.toy_family import TOY_CONFIG, parse_config

HIDDEN, EXPERT, NUM_EXPERTS = 20, 12, 3


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    sizes = {"width": HIDDEN, "part_width": EXPERT, "parts": NUM_EXPERTS}
    return parse_config({**TOY_CONFIG, **sizes})


@pytest.fixture(scope="module")
def held(config: ModelConfig, device: torch.device) -> CudaExperts:
    generator = torch.Generator().manual_seed(3)

    def matrix(*shape: int) -> StoredMatrix:
        values = torch.randn(shape, generator=generator) / 4
        return StoredMatrix(values=values, scales=None, block=(1, 1), where="w")

    made = CudaExperts(NUM_EXPERTS, config, "bf16", device)
    for slot in range(NUM_EXPERTS):
        w1, w3, w2 = matrix(EXPERT, HIDDEN), matrix(EXPERT, HIDDEN), matrix(HIDDEN, EXPERT)
        made.put(slot, StoredExpert(w1=w1, w3=w3, w2=w2))
    return made


@pytest.fixture
def calls(config: ModelConfig, held: CudaExperts, device: torch.device) -> CudaCalls:
    made = CudaCalls(config, device)
    made.prepare(held)
    return made


def call_of(slots: list[list[int]], seed: int = 0) -> CallRows:
    """One row for each list. Experts' ids are their slots."""
    generator = torch.Generator().manual_seed(seed)
    ids_M = torch.tensor([slot for row in slots for slot in row], dtype=torch.int64)
    counts_N = torch.tensor([len(row) for row in slots])
    return CallRows(
        hidden_ND=torch.randn((len(slots), HIDDEN), generator=generator).bfloat16(),
        row_of_pair_M=torch.arange(len(slots)).repeat_interleave(counts_N),
        expert_ids_M=ids_M,
        weights_M=torch.rand(len(ids_M), generator=generator),
    )


def direct(held: CudaExperts, call: CallRows) -> Tensor:
    """Without any row or pair that only fills up."""
    given = (call.hidden_ND, call.row_of_pair_M, call.expert_ids_M, call.weights_M)
    return held.sums(*(tensor.to(held.device) for tensor in given)).cpu()


def run(calls: CudaCalls, held: CudaExperts, call: CallRows, *, per_pair: bool = False) -> Tensor:
    """On a CUDA device any wait but the one at the end of the call is an error."""
    with strict() if held.device.type == "cuda" else contextlib.nullcontext():
        return calls.run(held, call, call.expert_ids_M.numpy(), per_pair=per_pair).clone()


@contextlib.contextmanager
def strict() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "slots", [[[0]], [[0, 2], [], [1]], [[1, 2]] * 9], ids=["one", "ragged", "grouped"]
)
def test_rows_and_pairs_that_fill_a_call_up_change_no_bit(
    calls: CudaCalls, held: CudaExperts, slots: list[list[int]]
) -> None:
    call = call_of(slots)
    found = run(calls, held, call)
    assert found.shape == (len(slots), HIDDEN)
    assert torch.equal(found, direct(held, call))
    assert torch.equal(run(calls, held, call), found)  # a CUDA device replays this one


def test_nothing_is_left_of_the_call_before(calls: CudaCalls, held: CudaExperts) -> None:
    """The longer one fills the same memory with other rows, pairs and sums."""
    run(calls, held, call_of([[0, 1], [1, 2], [0, 2]], seed=1))
    call = call_of([[2], []], seed=2)
    found = run(calls, held, call)
    assert torch.equal(found, direct(held, call))
    assert not found[1].any()


def test_calls_longer_than_graphs_are_made_for_have_the_same_bits(
    calls: CudaCalls, held: CudaExperts, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = call_of([[0, 2], [1], [0, 1]])
    expected = run(calls, held, call)
    monkeypatch.setattr("moe_model.kernels.cuda.graphs.calls.ROWS", (1, 2))
    assert torch.equal(run(calls, held, call), expected)
    longer = call_of([[0, 1]] * 3 + [[2]] * 2)
    assert torch.equal(run(calls, held, longer)[:3], direct(held, longer)[:3])


def test_numbers_unpacked_in_its_own_memory_are_the_calls(
    calls: CudaCalls, held: CudaExperts
) -> None:
    call = call_of([[0, 1], [2]])
    room = calls.room(2, 3)
    for name in ("hidden_ND", "row_of_pair_M", "expert_ids_M", "weights_M"):
        getattr(room, name).copy_(getattr(call, name))
    assert torch.equal(run(calls, held, room), direct(held, call))


def test_a_row_for_each_pair_is_its_own(calls: CudaCalls, held: CudaExperts) -> None:
    call = call_of([[0, 2], [1]])
    rows_MD = run(calls, held, call, per_pair=True)
    assert (rows_MD.shape, rows_MD.dtype) == ((3, HIDDEN), torch.bfloat16)
    sums_ND = run(calls, held, call)
    assert torch.equal(rows_MD[0].float() + rows_MD[1].float(), sums_ND[0])
    assert torch.equal(rows_MD[2].float(), sums_ND[1])


def test_no_call_waits_on_the_event_loop(calls: CudaCalls) -> None:
    assert calls.inline_rows == 0
