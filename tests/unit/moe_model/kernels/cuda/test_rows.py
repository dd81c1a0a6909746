"""Row kernels, linears and attention against their definitions in torch, at small odd sizes."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from attention_svc.kv.cache import KvCache
from moe_model.kernels.cuda.attention import (
    CudaAttention,
    DecodeRows,
    can_attend,
    scales_of,
)
from moe_model.kernels.cuda.linear import CudaLinear, RoutingMatrix
from moe_model.kernels.cuda.rows import CudaRows, Parts, launch_heads
from moe_model.maths.attention import attend
from moe_model.maths.kv_layout import Int8Layout, KVLayout, PlainLayout
from moe_model.maths.rope import rope_cos_sin, rope_frequencies
from moe_model.maths.row_maths import TORCH
from moe_model.maths.step_meta import ChunkMeta, StepMeta
from moe_model.quant import StoredMatrix

ROWS = CudaRows()
CLOSE = 1e-2  # bfloat16; Triton's interpreter cuts off where a GPU rounds


def relative_error(found: Tensor, expected: Tensor) -> float:
    expected = expected.float().cpu()
    return float((found.float().cpu() - expected).norm() / expected.norm())


def randn(device: torch.device, *shape: int, seed: int = 0) -> Tensor:
    found = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return found.bfloat16().to(device)


def test_norms_are_the_definitions(device: torch.device) -> None:
    rows, weight = randn(device, 3, 90), randn(device, 90, seed=1)
    assert relative_error(ROWS.rms_norm(rows, weight, 1e-6), TORCH.rms_norm(rows, weight, 1e-6)) < (
        CLOSE
    )
    added = randn(device, 3, 90, seed=2).float()
    found, expected = (maths.add_rms_norm(rows, added, weight, 1e-6) for maths in (ROWS, TORCH))
    assert all(relative_error(*pair) < CLOSE for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("is_normed", [True, False])
def test_heads_are_normed_and_rotated_as_defined(device: torch.device, is_normed: bool) -> None:
    qkv = randn(device, 3, (3 + 2 * 1) * 16)
    norms = (randn(device, 48, seed=1), randn(device, 16, seed=2)) if is_normed else None
    cos_sin = rope_cos_sin(torch.tensor([5, 0, 90]), rope_frequencies(8, 1e4))
    here = [x.to(device) for x in cos_sin]
    found = ROWS.split_heads(qkv.clone(), 3, 1, norms, 1e-6, *here)
    expected = TORCH.split_heads(qkv.clone(), 3, 1, norms, 1e-6, *here)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert relative_error(one, other) < CLOSE


def test_keys_and_values_are_coded_as_the_layout_says(device: torch.device) -> None:
    """A row with a NaN spoils its own head only; a row without a slot is stored nowhere."""
    layout = Int8Layout(2, 16)
    qkv = randn(device, 3, (2 + 2 * 2) * 16)
    qkv[1, 3 * 16] = float("nan")
    pages = tuple(torch.zeros((4, 1, *layout.row_shape), dtype=torch.int8) for _ in range(2))
    keys, values = (page.to(device) for page in pages)
    slots = torch.tensor([2, 0, -1], device=device)
    cos_sin = [torch.ones(3, 8, device=device), torch.zeros(3, 8, device=device)]
    q = torch.empty((3, 2, 16), dtype=torch.bfloat16, device=device)
    launch_heads(
        Parts.of(qkv), None, 1e-6, *cos_sin, slots, q, (keys, values),
        scales_of((keys, values)), 32,
    )  # fmt: skip
    k, v = qkv[:, 32:64].view(3, 2, 16), qkv[:, 64:].view(3, 2, 16)
    for stored, rows in ((keys, k), (values, v)):
        expected = layout.decode(layout.encode(rows.cpu()))
        found = layout.decode(stored[:, 0].cpu())
        torch.testing.assert_close(found[2], expected[0])
        torch.testing.assert_close(found[0], expected[1], equal_nan=True)
        assert not found[1].any()
        assert not found[3].any()


@pytest.mark.parametrize("has_bias", [True, False])
def test_experts_are_chosen_as_defined_with_ties_to_the_lower_id(
    device: torch.device, has_bias: bool
) -> None:
    logits = randn(device, 6, 11).float()
    logits[1] = 0.25  # all tied
    logits[2, 4] = logits[2, 9] = 3.0
    logits[3, 7] = float("inf")
    logits[4, 2] = -float("inf")
    bias = torch.linspace(-0.5, 0.5, 11).round(decimals=1).to(device) if has_bias else None
    found, expected = (maths.choose_experts(logits, bias, 3) for maths in (ROWS, TORCH))
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])


@pytest.mark.parametrize(("name", "off"), [("bf16", 0.01), ("fp8", 0.05), ("int4", 0.15)])
def test_linears_multiply_as_the_stored_parts(device: torch.device, name: str, off: float) -> None:
    """Parts of sizes that end within a block, too."""
    spread = torch.linspace(0.1, 10, 40)[:, None]  # of outputs: each has its own scale
    weights = [torch.randn(40, 150) * spread, torch.randn(24, 150)]
    parts = [StoredMatrix(values=w, scales=None, block=(1, 1), where="w") for w in weights]
    made = CudaLinear.of(parts, name, device)
    rows = randn(device, 3, 150)
    found = made.linear(rows, torch.float32)
    assert relative_error(found, rows.float().cpu() @ torch.cat(weights).T) < off
    assert torch.equal(made.linear(rows[1:2], torch.float32), found[1:2])
    assert made.linear(rows[:0], torch.bfloat16).shape == (0, 64)


def test_sums_shared_by_several_programs_have_the_same_bits(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moe_model.kernels.cuda.linear._SEGMENT", 1)
    part = StoredMatrix(values=torch.randn(8, 300), scales=None, block=(1, 1), where="w")
    made, rows = CudaLinear.of([part], "bf16", device), randn(device, 2, 300)
    shared = made.linear(rows, torch.float32)
    monkeypatch.setattr("moe_model.kernels.cuda.linear._FEW_TILES", 0)
    assert torch.equal(made.linear(rows, torch.float32), shared)
    assert relative_error(shared, rows.float().cpu() @ part.values.T) < CLOSE


def test_rows_that_do_not_fit_are_refused(device: torch.device) -> None:
    part = StoredMatrix(values=torch.randn(8, 16), scales=None, block=(1, 1), where="w")
    with pytest.raises(ValueError, match=r"16 columns, not torch\.bfloat16 with 24"):
        CudaLinear.of([part], "bf16", device).linear(randn(device, 1, 24), torch.float32)
    with pytest.raises(ValueError, match=r"16 columns, not torch\.bfloat16 with 24"):
        RoutingMatrix.of(part, device).linear(randn(device, 1, 24), torch.float32)


def test_routing_is_a_float32_product_of_each_row_alone(device: torch.device) -> None:
    weight, rows = torch.randn(11, 300), randn(device, 5, 300)
    stored = StoredMatrix(values=weight, scales=None, block=(1, 1), where="w")
    matrix = RoutingMatrix.of(stored, device)
    found = matrix.linear(rows.float(), torch.float32)
    assert relative_error(found, rows.float().cpu() @ weight.T) < 1e-6
    assert torch.equal(matrix.linear(rows[3:4].float(), torch.float32), found[3:4])


@pytest.mark.parametrize(
    ("kind", "off"),
    [
        (partial(PlainLayout, dtype=torch.bfloat16), CLOSE),
        pytest.param(Int8Layout, 2e-2, marks=pytest.mark.slow),
    ],
)
def test_attention_over_pages_has_the_same_bits_decoded_and_in_chunks(
    device: torch.device, kind: Callable[[int, int], KVLayout], off: float
) -> None:
    """A context of two spans; a row decoded, within its chunk, and within a later cut of it."""
    heads, groups, size, block, length = 3, 1, 16, 16, 262
    cache = KvCache(
        kind(groups, size),
        num_layers=1, num_blocks=20, block_size=block, device=device,
    )  # fmt: skip
    table = torch.randperm(20, generator=torch.Generator().manual_seed(3)).to(device)
    keys, values = (randn(device, length, groups, size, seed=seed) for seed in (1, 2))
    at = torch.arange(length, device=device)
    cache.store(0, keys, values, table[at // block] * block + at % block)
    queries = randn(device, 9, heads, size, seed=4)
    attention = CudaAttention(cache, heads, groups)

    def found(first: int, stop: int, *, decoded: bool) -> Tensor:
        nothing = torch.empty(0, dtype=torch.int64, device=device)
        chunk = ChunkMeta(
            rows=slice(0, stop - first),
            positions_T=nothing,
            block_table_W=table,
            num_cached=length - 9 + stop,
        )
        meta = StepMeta(
            token_ids_T=nothing,
            positions_T=nothing,
            slot_mapping_T=nothing,
            num_decode=stop - first if decoded else 0,
            decode_tables_BW=table.expand(stop - first, -1),
            decode_lens_B=torch.arange(first, stop, device=device) + length - 9 + 1,
            chunks=() if decoded else (chunk,),
            logit_rows_B=nothing,
            open_rows_C=nothing,
            is_decode=decoded,
        )
        return attention.plan(meta)(0, queries[first:stop])

    whole = found(0, 9, decoded=False)
    positions = torch.arange(length - 9, length)
    expected = attend(*(x.float().cpu() for x in (queries, keys, values)), positions)
    assert relative_error(whole, expected) < off
    assert torch.equal(found(6, 9, decoded=False), whole[6:])
    assert torch.equal(found(2, 4, decoded=True), whole[2:4])


def test_a_long_row_beside_short_ones_gives_those_no_more_items(device: torch.device) -> None:
    lens_B = torch.tensor([257, 1, 256 * 700])
    made = DecodeRows.of(torch.zeros((3, 11_200), dtype=torch.int64), lens_B, device)
    assert made.row_of_item_I.tolist() == [0, 0, 1, *[2] * 700]
    assert made.first_item_B.tolist() == [0, 2, 3]
    assert made.table_of_row_B.tolist() == [0, 11_200, 22_400]


def test_only_layouts_and_heads_that_it_reads_are_taken() -> None:
    layout = PlainLayout(2, 32, torch.bfloat16)
    assert can_attend(torch.bfloat16, layout, 12, 2)
    assert can_attend(torch.bfloat16, Int8Layout(2, 32), 12, 2)
    assert not can_attend(torch.float32, Int8Layout(2, 32), 12, 2)
    assert not can_attend(torch.bfloat16, PlainLayout(2, 24, torch.bfloat16), 12, 2)
    assert not can_attend(torch.bfloat16, PlainLayout(1, 32, torch.bfloat16), 64, 1)
