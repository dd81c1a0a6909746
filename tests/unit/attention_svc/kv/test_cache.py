"""What is stored is read back; copying and clearing leave nothing of an earlier sequence."""

import pytest
import torch

from attention_svc.kv.cache import KvCache
from attention_svc.kv.moves import BlockCopy
from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.paged_rows import TiledLayout
from moe_model.maths.kv_layout import Int8Layout, KVLayout, PlainLayout, block_bytes

LAYERS, BLOCKS, BLOCK, GROUPS, HEAD = 2, 5, 4, 2, 6
NAN = float("nan")
LAYOUTS = [
    PlainLayout(GROUPS, HEAD, torch.float32),
    PlainLayout(GROUPS, HEAD, torch.bfloat16),
    pytest.param(
        TiledLayout(GROUPS, HEAD),
        marks=pytest.mark.skipif(library.load() is None, reason="the kernels are not built"),
    ),
]


def cache(layout: KVLayout) -> KvCache:
    return KvCache(
        layout, num_layers=LAYERS, num_blocks=BLOCKS, block_size=BLOCK, device=torch.device("cpu")
    )


def fill(made: KvCache, block: int, value: float) -> None:
    rows_TGP = torch.full((BLOCK, GROUPS, HEAD), value)
    slots_T = block * BLOCK + torch.arange(BLOCK)
    for layer_idx in range(LAYERS):
        made.store(layer_idx, rows_TGP, rows_TGP + 1, slots_T)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_come_back_in_table_order_rounded_to_the_format(layout: KVLayout):
    made, dtype = cache(layout), layout.dtype
    rows_TGP = torch.randn((2 * BLOCK, GROUPS, HEAD))
    table_W = torch.tensor([3, 1])
    slots_T = (table_W[:, None] * BLOCK + torch.arange(BLOCK)).flatten()
    made.store(1, rows_TGP, -rows_TGP, slots_T)
    k_SGP, v_SGP = made.gather(1, table_W)
    assert torch.equal(k_SGP, rows_TGP.to(dtype))
    assert torch.equal(v_SGP, -rows_TGP.to(dtype))
    both_k, _ = made.gather(1, torch.stack((table_W, table_W.flip(0))))
    assert torch.equal(both_k[1], torch.cat((k_SGP[BLOCK:], k_SGP[:BLOCK])))
    assert not made.gather(0, table_W)[0].any()  # another layer's


@pytest.mark.parametrize("num_rows", range(BLOCK + 1))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_copy_takes_the_first_rows_and_zeroes_the_rest(layout: KVLayout, num_rows: int):
    made = cache(layout)
    fill(made, 0, 7.0)
    fill(made, 2, NAN)
    made.copy(BlockCopy(source=0, target=2, num_rows=num_rows))
    for layer_idx in range(LAYERS):
        for stored, value in zip(made.gather(layer_idx, torch.tensor([2])), (7, 8), strict=True):
            expected = torch.zeros(BLOCK, GROUPS, HEAD)
            expected[:num_rows] = value
            assert torch.equal(stored.float(), expected)
    assert made.gather(0, torch.tensor([0]))[0].unique().tolist() == [7]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_cleared_block_is_zero_and_its_neighbours_are_not(layout: KVLayout):
    made = cache(layout)
    for block in range(BLOCKS):
        fill(made, block, NAN if block == 1 else 5.0)
    made.clear([1, 3])
    k_SGP, v_SGP = made.gather(0, torch.arange(BLOCKS))
    assert k_SGP[:, 0, 0].view(BLOCKS, BLOCK).tolist() == [[v] * BLOCK for v in (5, 0, 5, 0, 5)]
    assert v_SGP[:, 0, 0].view(BLOCKS, BLOCK)[:, 0].tolist() == [6, 0, 6, 0, 6]


@pytest.mark.parametrize("layout", [*LAYOUTS, Int8Layout(GROUPS, HEAD)])
def test_a_blocks_bytes_are_what_the_cache_takes(layout: KVLayout):
    made = cache(layout)
    held = [pages.nbytes for layer_idx in range(LAYERS) for pages in made.pages(layer_idx)]
    assert block_bytes(layout, LAYERS, BLOCK) * BLOCKS == sum(held)


def test_int8_rows_come_back_within_half_a_step_of_their_heads_largest():
    layout = Int8Layout(GROUPS, HEAD)
    made = KvCache(
        layout, num_layers=1, num_blocks=BLOCKS, block_size=BLOCK, device=torch.device("cpu")
    )
    rows_TGP = torch.randn(BLOCK, GROUPS, HEAD) * torch.tensor([1e-3, 40.0])[:, None]
    rows_TGP[1] = 0
    rows_TGP[2, 1, 0] = NAN
    made.store(0, rows_TGP, -rows_TGP, 2 * BLOCK + torch.arange(BLOCK))
    k_SGP, v_SGP = made.gather(0, torch.tensor([2]))
    half_step = rows_TGP.abs().amax(-1, keepdim=True) / 254
    assert bool(((k_SGP - rows_TGP).abs() <= half_step * 1.001)[[0, 1, 3]].all())
    assert bool(((v_SGP + rows_TGP).abs() <= half_step * 1.001)[[0, 1, 3]].all())
    assert not k_SGP[1].any()
    assert bool(k_SGP[2, 1].isnan().all())  # poisoned, not silently zero
    assert bool(k_SGP[2, 0].isfinite().all())
