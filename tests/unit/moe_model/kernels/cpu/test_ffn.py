"""The fused expert FFN against float64, and against each of its rows computed alone."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.ffn import KernelExperts, expert_rows, expert_sums, routed_sums
from moe_model.maths.experts import combine_rows
from tests.support.examples import examples
from tests.support.moe_model.float_packing import put
from tests.support.moe_model.kernel_cases import ISAS, assert_close, needs_kernels, random, using

pytestmark = needs_kernels

D, FEATURES, EXPERTS = 96, 48, 5
TOLERANCE = {"bf16": 0.012}


@pytest.fixture(params=ISAS)
def isa(request, monkeypatch):
    yield from using(request.param, monkeypatch)


def experts(format: str = "bf16", d: int = D, f: int = FEATURES, scale: float = 0.2):
    held = KernelExperts(EXPERTS, d, f, format)
    for slot in range(EXPERTS):
        put(held, slot, random(2 * f, d, seed=slot, scale=scale), random(d, f, seed=slot + 90))
    return held


def message(num_rows: int, top_k: int = 2, d: int = D, used: int = EXPERTS) -> tuple[Tensor, ...]:
    """hidden, row_of_pair, slots, weights; experts ascending within a row."""
    generator = torch.Generator().manual_seed(num_rows)
    hidden = random(num_rows, d, seed=num_rows)
    picks = [torch.randperm(used, generator=generator)[:top_k].sort()[0] for _ in range(num_rows)]
    slots = torch.cat(picks) if picks else torch.empty(0, dtype=torch.int64)
    row_of_pair = torch.arange(num_rows).repeat_interleave(top_k)
    return hidden, row_of_pair, slots, torch.rand(slots.shape[0], generator=generator) + 0.1


def exact_rows(hidden, row_of_pair, slots, weights, held) -> tuple[Tensor, Tensor]:
    """float64 without any rounding, and the size of the terms that w2 adds."""
    out, sizes = [], []
    for pair, slot in enumerate(slots.tolist()):
        w13, w2 = (w.double() for w in held.unpacked(slot))
        gate, up = F.linear(hidden[row_of_pair[pair]].double(), w13).chunk(2)
        activated = F.silu(gate) * up
        out.append(F.linear(activated, w2) * weights[pair].double())
        sizes.append(F.linear(activated.abs(), w2.abs()) * weights[pair].double())
    return torch.stack(out), torch.stack(sizes)


@pytest.mark.parametrize("d,f", [(D, FEATURES), (33, 31), (70, 129)])
@pytest.mark.parametrize("num_rows", [1, 2, 17, 120])
def test_is_the_float64_ffn(isa, d, f, num_rows):
    held = experts(d=d, f=f)
    args = message(num_rows, d=d)
    exact, size = exact_rows(*args, held)
    rows = expert_rows(*args, held)
    assert_close(rows, exact, size, TOLERANCE["bf16"])
    assert torch.equal(expert_sums(*args, held), combine_rows(rows, args[1], num_rows))


def test_rounds_where_the_definition_says(isa):
    """float32 sums, one rounding after SiLU * up and one after weighting: nearly every bit."""
    held, args = experts(), message(64)
    hidden, row_of_pair, slots, weights = args
    expected = []
    for pair, slot in enumerate(slots.tolist()):
        w13, w2 = held.unpacked(slot)
        gate, up = F.linear(hidden[row_of_pair[pair]].float(), w13).chunk(2)
        activated = (F.silu(gate) * up).to(torch.bfloat16).float()
        expected.append((F.linear(activated, w2) * weights[pair]).to(torch.bfloat16))
    same = torch.stack(expected) == expert_rows(*args, held)
    assert float(same.float().mean()) > 0.97


@pytest.mark.parametrize("name,used", [("one expert has all rows", 1), ("empty experts", 3)])
def test_uneven_groups(isa, name, used):
    held = experts()
    for num_rows in (1, 13, 300):
        args = message(num_rows, top_k=1, used=used)
        exact, size = exact_rows(*args, held)
        assert_close(expert_sums(*args, held), exact, size, TOLERANCE["bf16"])


def test_rows_without_an_expert_are_zero(isa):
    held = experts()
    hidden, _, _, _ = message(6)
    one = torch.tensor([4]), torch.tensor([2]), torch.ones(1)
    sums = expert_sums(hidden, *one, held)
    assert not sums[[0, 1, 2, 3, 5]].any()
    assert torch.equal(sums[4], expert_rows(hidden, *one, held)[0].float())
    nothing = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), torch.empty(0)
    assert not expert_sums(hidden, *nothing, held).any()
    assert expert_rows(hidden, *nothing, held).shape == (0, D)


@pytest.mark.parametrize("num_rows,top_k", [(1, 1), (1, 4), (7, 3), (40, 2)])
def test_what_routing_gives_is_summed_without_a_list_of_pairs(isa, num_rows, top_k):
    held = experts()
    hidden, row_of_pair, slots, weights = message(num_rows, top_k)
    out = torch.full((num_rows, D), float("nan"))
    ids = slots.view(num_rows, top_k).int()
    routed_sums(hidden, ids, weights.view(num_rows, top_k), held, out)
    assert torch.equal(out, expert_sums(hidden, row_of_pair, slots, weights, held))


@pytest.mark.parametrize("expert_id", [-1, EXPERTS, 2**31 - 1])
def test_an_id_that_is_not_held_is_refused(expert_id):
    ids = torch.tensor([[0, expert_id]], dtype=torch.int32)
    with pytest.raises(ValueError, match="not held"):
        routed_sums(random(1, D), ids, torch.ones(1, 2), experts(), torch.empty(1, D))


def test_large_gates_saturate(isa):
    """SiLU of large negative numbers is zero, of large positive ones the number itself."""
    held = KernelExperts(1, 2, 32)
    w13 = torch.cat([torch.full((32, 2), 1.0), torch.tensor([[1.0, 0.0]]).expand(32, 2)])
    put(held, 0, w13, torch.eye(2, 32))
    pair = torch.tensor([0]), torch.tensor([0]), torch.ones(1)
    for gate, expected in ((-500.0, 0.0), (-95.0, 0.0), (300.0, 300.0)):
        hidden = torch.tensor([[1.0, gate - 1]]).to(torch.bfloat16)
        found = expert_sums(hidden, *pair, held)[0, 0]
        assert float(found) == pytest.approx(expected, rel=0.01, abs=1e-30)


@pytest.mark.parametrize("num_rows", [2, 50, 300])
def test_a_row_depends_on_no_other_row_and_no_thread(isa, num_rows):
    held = experts()
    hidden, row_of_pair, slots, weights = message(num_rows)
    together = expert_sums(hidden, row_of_pair, slots, weights, held)
    for row in (0, num_rows // 2, num_rows - 1):
        mine = row_of_pair == row
        alone = expert_sums(
            hidden[row : row + 1], row_of_pair[mine] - row, slots[mine], weights[mine], held
        )
        assert torch.equal(alone[0], together[row])
    for num_threads in (1, 3):
        library.need().set_threads(num_threads)
        assert torch.equal(expert_sums(hidden, row_of_pair, slots, weights, held), together)


def test_more_pairs_than_are_computed_at_once(isa):
    held = experts(d=34, f=32)
    args = message(2500, top_k=3, d=34)
    rows = expert_rows(*args, held)
    assert torch.equal(expert_sums(*args, held), combine_rows(rows, args[1], 2500))
    exact, size = exact_rows(args[0], *(part[-300:] for part in args[1:]), held)
    assert_close(rows[-300:], exact, size, TOLERANCE["bf16"])


def test_many_experts_with_few_pairs_each_in_two_turns(isa):
    """Over 4,096 pairs, at most 64 for an expert: both turns sum rows in a pass of their own."""
    held = KernelExperts(90, 34, 32)
    for slot in range(90):
        put(held, slot, random(64, 34, seed=slot, scale=0.2), random(34, 32, seed=slot + 90))
    hidden = random(1500, 34)
    row_of_pair = torch.arange(1500).repeat_interleave(3)
    slots = (row_of_pair.view(-1, 3) * 7 % 30 * 3 + torch.arange(3)).flatten()
    weights = torch.rand(slots.shape) + 0.1
    rows = expert_rows(hidden, row_of_pair, slots, weights, held)
    sums = expert_sums(hidden, row_of_pair, slots, weights, held)
    assert torch.equal(sums, combine_rows(rows, row_of_pair, 1500))


INDEX = st.lists(st.integers(-2, 7), min_size=0, max_size=9)


@examples(60)
@given(
    rows=INDEX,
    slots=INDEX,
    num_weights=st.integers(0, 9),
    d=st.integers(0, 100),
    wrong_dtype=st.booleans(),
)
def test_wrong_arguments_are_value_errors(rows, slots, num_weights, d, wrong_dtype):
    held = KernelExperts(4, 34, 5)
    for slot in range(3):  # the last stays empty
        put(held, slot, random(10, 34), random(34, 5))
    args = (
        random(6, 34 if d > 50 else d, dtype=torch.float32 if wrong_dtype else torch.bfloat16),
        torch.tensor(rows, dtype=torch.int64),
        torch.tensor(slots, dtype=torch.int64),
        torch.ones(num_weights),
    )
    sound = (
        args[0].shape[1] == 34
        and not wrong_dtype
        and len(rows) == len(slots) == num_weights
        and all(0 <= row < 6 for row in rows)
        and all(0 <= slot < 3 for slot in slots)
    )
    if sound:
        assert expert_sums(*args, held).shape == (6, 34)
    else:
        with pytest.raises(ValueError, match=r"must be|names"):
            expert_sums(*args, held)
