"""Attention over scattered pages against a naive float64 one, at every border."""

import dataclasses
import math

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

import moe_model.maths.paged_attention as paged
from moe_model.maths.attention_parts import Part, _attend_plainly, attend_part, merge
from moe_model.maths.paged_attention import attend_chunk, attend_decode, plan_decode
from tests.support.examples import examples

BLOCK = 4
GROUPS, HEADS, HEAD_DIM = 2, 6, 8
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
dtypes = st.sampled_from([torch.float32, torch.bfloat16])
seeds = st.integers(0, 10_000)
SHARED = [HealthCheck.function_scoped_fixture]
"""One formula for all examples of a test is what is meant."""


@dataclasses.dataclass
class Pages:
    """Sequences' keys and values in blocks of a random order; what nobody owns is NaN."""

    lens: list[int]
    dtype: torch.dtype
    seed: int

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)
        counts = [-(-length // BLOCK) for length in self.lens]
        order = torch.randperm(sum(counts) + 2, generator=self._generator)
        shape = (2, len(order), BLOCK, GROUPS, HEAD_DIM)
        self._data = torch.full(shape, float("nan"), dtype=self.dtype)
        self.tables = list(order[2:].split(counts))
        self.kv = []
        for table, length in zip(self.tables, self.lens, strict=True):
            rows = self.noise(2, length, GROUPS, HEAD_DIM)
            self.kv.append(rows)
            own = torch.zeros(2, len(table) * BLOCK, GROUPS, HEAD_DIM, dtype=self.dtype)
            own[:, :length] = rows
            self._data[:, table] = own.view(2, -1, BLOCK, GROUPS, HEAD_DIM)

    def noise(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self._generator).to(self.dtype)

    def padded(self) -> torch.Tensor:
        width = max(len(table) for table in self.tables)
        return torch.stack(
            [torch.cat((table, table[:1].expand(width - len(table)))) for table in self.tables]
        )

    def gather(self, tables: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (*tables.shape[:-1], -1, GROUPS, HEAD_DIM)
        return self._data[0][tables].view(shape), self._data[1][tables].view(shape)


def naive(q_THP: torch.Tensor, kv: torch.Tensor, first: int) -> torch.Tensor:
    """Row by row and head by head, in float64; row t sees positions 0..first + t."""
    out = torch.zeros(q_THP.shape, dtype=torch.float64)
    for t, q_HP in enumerate(q_THP.double()):
        keys, values = kv[:, : first + t + 1].double()
        for h, q in enumerate(q_HP):
            g = h // (HEADS // GROUPS)
            scores = keys[:, g] @ q / math.sqrt(HEAD_DIM)
            out[t, h] = torch.softmax(scores, 0) @ values[:, g]
    return out.view(len(q_THP), -1)


def close(got: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    assert got.dtype == dtype
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(got.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles, widths and groups already at a few dozen positions."""
    monkeypatch.setattr(paged, "TILE_POSITIONS", 4 * BLOCK)
    monkeypatch.setattr(paged, "PREFIX_POSITIONS", 3 * BLOCK)
    monkeypatch.setattr(paged, "GATHER_POSITIONS", 10 * BLOCK)


@pytest.fixture(params=["fused", "plain"])
def formula(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's operator, and what other devices compute in its place."""
    if request.param == "plain":
        monkeypatch.setattr(paged, "attend_part", plain_part)


def plain_part(q, k, v, *, bias_NS=None, is_causal=False) -> Part:
    bias = None if bias_NS is None else bias_NS[:, None, None, :]
    return _attend_plainly(q, k.transpose(1, 2), v.transpose(1, 2), bias, is_causal)


@pytest.mark.usefixtures("formula")
@examples(40, suppress_health_check=SHARED)
@given(st.lists(st.integers(1, 70), min_size=1, max_size=6), dtypes, seeds)
def test_decode_of_any_lengths_is_the_naive_loop(lens: list[int], dtype, seed: int) -> None:
    pages = Pages(lens, dtype, seed)
    q_BHP = pages.noise(len(lens), HEADS, HEAD_DIM)
    plan = plan_decode(pages.padded(), torch.tensor(lens), BLOCK)
    got = attend_decode(q_BHP, plan, pages.gather)
    for row, length in enumerate(lens):
        expected = naive(q_BHP[row : row + 1], pages.kv[row], length - 1)
        close(got[row : row + 1], expected, dtype)


@pytest.mark.usefixtures("formula")
@examples(40, suppress_health_check=SHARED)
@given(st.integers(0, 45), st.integers(1, 30), dtypes, seeds)
def test_a_chunk_after_any_prefix_is_the_naive_loop(
    prefix: int, rows: int, dtype, seed: int
) -> None:
    pages = Pages([prefix + rows], dtype, seed)
    q_THP = pages.noise(rows, HEADS, HEAD_DIM)
    got = attend_chunk(q_THP, prefix + rows, pages.tables[0], BLOCK, pages.gather)
    close(got, naive(q_THP, pages.kv[0], prefix), dtype)


@examples(30)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=6), seeds)
def test_a_decode_row_does_not_depend_on_its_batch(lens: list[int], seed: int) -> None:
    pages = Pages(lens, torch.float32, seed)
    q_BHP = pages.noise(len(lens), HEADS, HEAD_DIM)
    together = attend_decode(
        q_BHP, plan_decode(pages.padded(), torch.tensor(lens), BLOCK), pages.gather
    )
    for row, length in enumerate(lens):
        plan = plan_decode(pages.tables[row][None], torch.tensor([length]), BLOCK)
        alone = attend_decode(q_BHP[row : row + 1], plan, pages.gather)
        assert torch.equal(alone[0], together[row])


@given(st.lists(st.integers(1, 200), min_size=1, max_size=8))
def test_the_plan_gathers_at_most_twice_what_is_seen(lens: list[int]) -> None:
    """Work grows with each row's own context: padding never follows the longest row."""
    pages = Pages(lens, torch.float32, 0)
    plan = plan_decode(pages.padded(), torch.tensor(lens), BLOCK)
    gathered = sum(group.tables_NW.numel() for group in plan.groups)
    assert gathered < 2 * sum(-(-length // BLOCK) for length in lens)
    assert all(group.tables_NW.numel() * BLOCK <= paged.GATHER_POSITIONS for group in plan.groups)


@examples(40)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.booleans(), seeds)
def test_parts_of_the_keys_merge_into_the_whole(sizes: list[int], apart: bool, seed: int) -> None:
    """`apart`: with scores so far apart that most parts weigh next to nothing."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(1, GROUPS, 3, HEAD_DIM, generator=generator)
    k, v = torch.randn(2, 1, sum(sizes), GROUPS, HEAD_DIM, generator=generator).unbind(0)
    k = k * 40 if apart else k
    whole = attend_part(q, k, v)
    pieces = zip(k.split(sizes, dim=1), v.split(sizes, dim=1), strict=True)
    parts = [attend_part(q, *piece) for piece in pieces]
    merged: Part = parts[0]
    for part in parts[1:]:
        merged = merge(merged, part)
    torch.testing.assert_close(merged.mean, whole.mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(merged.lse, whole.lse, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("is_causal", [False, True])
def test_the_plain_formula_of_other_devices_is_the_fused_operator(is_causal: bool) -> None:
    q = torch.randn(2, GROUPS, 5, HEAD_DIM)
    k, v = torch.randn(2, 2, 5, GROUPS, HEAD_DIM).unbind(0)
    bias = torch.zeros(2, 5)
    bias[1, 3:] = float("-inf")
    fused = attend_part(q, k, v, bias_NS=bias, is_causal=is_causal)
    plain = plain_part(q, k, v, bias_NS=bias, is_causal=is_causal)
    torch.testing.assert_close(plain.mean, fused.mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plain.lse, fused.lse, atol=1e-5, rtol=1e-5)
