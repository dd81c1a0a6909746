"""The native attention of a step is torch's, for decode rows beside chunks, in every KV layout."""

from functools import partial

import pytest
import torch

from attention_svc.kv.cache import KvCache
from moe_model.backends.choice import choose_backend
from moe_model.families.known import parse_config
from moe_model.families.minimax_m2.tiny_config import TINY
from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.attention import attend_paged
from moe_model.kernels.cpu.paged_rows import NativeAttention, paged_rows
from moe_model.maths.paged_attention import TorchAttention, attend_chunk, attend_decode, plan_decode
from moe_model.maths.step_meta import ChunkMeta, StepMeta

MODEL = parse_config(TINY)
BLOCK = 16
EMPTY = torch.tensor([], dtype=torch.int64)


def make_cache(kv_dtype: str, dtype: torch.dtype) -> KvCache:
    cache = KvCache(
        choose_backend(dtype).kv_layout(kv_dtype, MODEL, BLOCK),
        num_layers=2,
        num_blocks=20,
        block_size=BLOCK,
        device=torch.device("cpu"),
    )
    generator = torch.Generator().manual_seed(0)
    for layer_idx in range(2):
        k, v = torch.randn(
            2, 20 * BLOCK, MODEL.num_kv_heads, MODEL.head_dim, generator=generator
        ).to(dtype)
        cache.store(layer_idx, k, v, torch.arange(20 * BLOCK))
    return cache


def make_meta() -> StepMeta:
    """Two decode rows over 3 and 40 positions, and a chunk of 20 rows on 30."""
    chunk = ChunkMeta(
        rows=slice(2, 22),
        positions_T=torch.arange(30, 50),
        block_table_W=torch.tensor([7, 3, 11, 2]),
        num_cached=50,
    )
    return StepMeta(
        token_ids_T=torch.zeros(22, dtype=torch.int64),
        positions_T=EMPTY,
        slot_mapping_T=EMPTY,
        num_decode=2,
        decode_tables_BW=torch.tensor([[5, 5, 5], [9, 1, 13]]),
        decode_lens_B=torch.tensor([3, 40]),
        chunks=(chunk,),
        logit_rows_B=EMPTY,
        open_rows_C=EMPTY,
        is_decode=False,
    )


@pytest.mark.skipif(library.load() is None, reason="built without a compiler, or another CPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_dtype", ["auto", "bf16", "int8"])
def test_native_and_torch_agree(kv_dtype: str, dtype: torch.dtype):
    cache, meta = make_cache(kv_dtype, dtype), make_meta()
    if dtype == torch.bfloat16:
        assert isinstance(choose_backend(dtype).attention(MODEL, cache), NativeAttention)
    q_THP = torch.randn(22, MODEL.num_heads, MODEL.head_dim).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for layer_idx in range(2):
        gather = partial(cache.gather, layer_idx)
        plan = plan_decode(meta.decode_tables_BW, meta.decode_lens_B, BLOCK)
        chunk = meta.chunks[0]
        expected = torch.cat(
            (
                attend_decode(q_THP[:2], plan, gather),
                attend_chunk(q_THP[2:], 50, chunk.block_table_W, BLOCK, gather),
            )
        )
        pages = cache.pages(layer_idx)
        found = attend_paged(q_THP, *pages, MODEL.num_kv_heads, paged_rows(meta))
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def test_without_kernels_torch_attends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(library, "load", lambda: None)
    cache = make_cache("auto", torch.bfloat16)
    attention = choose_backend(torch.bfloat16).attention(MODEL, cache)
    assert isinstance(attention, TorchAttention)
