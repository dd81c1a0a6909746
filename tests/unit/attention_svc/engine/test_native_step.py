"""Native layers with memory allocated once give the bits of the layers called one by one."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from attention_svc.kv.cache import KvCache
from moe_model.backends.choice import choose_backend
from moe_model.families.known import parse_config
from moe_model.families.minimax_m2.tiny_config import TINY
from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.attention import takes_tiles
from moe_model.kernels.cpu.layer import NativeLayer, hold_layer
from moe_model.kernels.cpu.paged_rows import NativeAttention, TiledLayout, paged_rows
from moe_model.kernels.cpu.rows import NativeRows
from moe_model.kernels.cpu.step import NativeStep, NativeSteps
from moe_model.maths.layer import LayerWeights
from moe_model.maths.layer_steps import PlainSteps
from moe_model.maths.rope import rope_cos_sin, rope_frequencies
from moe_model.maths.step_meta import ChunkMeta, StepMeta
from tests.support.moe_model.float_packing import pack

MODEL = parse_config(TINY)
BLOCK, NUM_BLOCKS, LAYERS = 16, 20, 3
HEADS = (MODEL.num_heads, MODEL.num_kv_heads, MODEL.head_dim)
FREQUENCIES = rope_frequencies(MODEL.rotary_dim, MODEL.rope_theta)

pytestmark = pytest.mark.skipif(
    library.load() is None or not takes_tiles(torch.bfloat16, *HEADS, BLOCK),
    reason="no native tiles here",
)


def _random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _layer(seed: int) -> NativeLayer:
    d, q, kv, e = MODEL.hidden_size, MODEL.query_size, MODEL.kv_size, MODEL.num_experts
    weights = LayerWeights(
        input_norm_D=_random(seed, d).bfloat16(),
        qkv_AD=pack(_random(seed + 1, q + 2 * kv, d) / d**0.5, "bf16"),
        q_norm=_random(seed + 2, q).bfloat16(),
        k_norm=_random(seed + 3, kv).bfloat16(),
        o_DA=pack(_random(seed + 4, d, q) / q**0.5, "bf16"),
        post_norm_D=_random(seed + 5, d).bfloat16(),
        routing_ED=pack(_random(seed + 6, e, d), "f32"),
        bias_E=_random(seed + 7, e),
    )
    held = hold_layer(weights, MODEL)
    assert isinstance(held, NativeLayer)
    return held


def _cache(kv_dtype: str = "auto") -> KvCache:
    device = torch.device("cpu")
    layout = choose_backend(torch.bfloat16).kv_layout(kv_dtype, MODEL, BLOCK)
    cache = KvCache(
        layout, num_layers=LAYERS, num_blocks=NUM_BLOCKS, block_size=BLOCK, device=device
    )
    for layer_idx in range(LAYERS):
        k, v = _random(layer_idx, 2, NUM_BLOCKS * BLOCK, *HEADS[1:]).bfloat16()
        cache.store(layer_idx, k, v, torch.arange(NUM_BLOCKS * BLOCK))
    return cache


def _meta(num_decode: int, chunk_rows: int) -> StepMeta:
    """Decode rows over 3, 40, 17, ... positions, and a chunk on 30 earlier ones."""
    lens = torch.tensor([3, 40, 17, 1, 33][:num_decode], dtype=torch.int64)
    tables = torch.tensor([[5, 5, 5], [9, 1, 13], [4, 6, 6], [8, 8, 8], [10, 12, 14]])[:num_decode]
    chunks: tuple[ChunkMeta, ...] = ()
    positions = lens - 1
    slots = tables[torch.arange(num_decode), positions // BLOCK] * BLOCK + positions % BLOCK
    if chunk_rows:
        table = torch.tensor([7, 3, 11, 2])
        added = torch.arange(30, 30 + chunk_rows)
        chunks = (
            ChunkMeta(
                rows=slice(num_decode, num_decode + chunk_rows),
                positions_T=added,
                block_table_W=table,
                num_cached=30 + chunk_rows,
            ),
        )
        positions = torch.cat((positions, added))
        slots = torch.cat((slots, table[added // BLOCK] * BLOCK + added % BLOCK))
    nothing = torch.tensor([], dtype=torch.int64)
    return StepMeta(
        token_ids_T=torch.zeros(len(positions), dtype=torch.int64),
        positions_T=positions,
        slot_mapping_T=slots,
        num_decode=num_decode,
        decode_tables_BW=tables,
        decode_lens_B=lens,
        chunks=chunks,
        logit_rows_B=nothing,
        open_rows_C=nothing,
        is_decode=not chunks,
    )


def _both(
    steps: NativeSteps,
    layers: list[NativeLayer],
    caches: tuple[KvCache, KvCache],
    meta: StepMeta,
    seed: int,
) -> None:
    """Run the same rows both ways; every tensor on the way must be equal."""
    hidden_TD = _random(seed, meta.num_rows, MODEL.hidden_size).bfloat16()
    cos_sin = rope_cos_sin(meta.positions_T, FREQUENCIES)
    attention = NativeAttention(caches[0], MODEL.num_kv_heads)
    plain = PlainSteps(layers, caches[0], attention, NativeRows()).begin(
        hidden_TD.clone(), *cos_sin, meta
    )
    native = steps.begin(hidden_TD.clone(), *cos_sin, meta.slot_mapping_T, paged_rows(meta))
    for layer_idx in range(LAYERS):
        expected, found = plain.up_to_dispatch(layer_idx), native.up_to_dispatch(layer_idx)
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
        combined_TD = _random(seed + layer_idx, *hidden_TD.shape)
        for step in (plain, native):
            step.combined_TD.copy_(combined_TD)
            step.from_combine()
        assert torch.equal(plain.hidden_TD, native.hidden_TD)
        for one, other in zip(caches[0].pages(layer_idx), caches[1].pages(layer_idx), strict=True):
            assert torch.equal(one, other)
    assert (native.chosen() == np.stack(plain.chosen())).all()


def _steps(cache: KvCache) -> tuple[NativeSteps, list[NativeLayer]]:
    layers = [_layer(10 * layer_idx) for layer_idx in range(LAYERS)]
    return NativeSteps(layers, [cache.pages(index) for index in range(LAYERS)]), layers


def test_layers_without_looking_again_give_the_bits_of_layers_one_by_one():
    caches = _cache(), _cache()
    assert isinstance(caches[0].layout, TiledLayout)
    steps, layers = _steps(caches[1])
    # One size twice in a row uses its room again; another size makes a new one.
    for seed, (num_decode, chunk_rows) in enumerate(
        [(1, 0), (1, 0), (5, 0), (2, 20), (0, 7), (1, 0)]
    ):
        _both(steps, layers, caches, _meta(num_decode, chunk_rows), seed)


def test_what_a_step_chose_is_not_changed_by_the_next():
    cache = _cache()
    steps, _ = _steps(cache)
    meta = _meta(1, 0)

    def run(seed: int) -> NativeStep:
        step = steps.begin(
            _random(seed, 1, MODEL.hidden_size).bfloat16(),
            *rope_cos_sin(meta.positions_T, FREQUENCIES),
            meta.slot_mapping_T,
            paged_rows(meta),
        )
        step.up_to_dispatch(0)
        return step

    chosen = run(1).chosen()
    kept = chosen.copy()
    run(2)
    run(3)
    assert (chosen == kept).all()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda given: {"hidden_TD": given["hidden_TD"].float()}, "hidden must be"),
        (lambda given: {"hidden_TD": given["hidden_TD"][:, 1:]}, "hidden must be"),
        (lambda given: {"cos_T": given["cos_T"][:1]}, "cos must be"),
        (lambda given: {"sin_T": given["sin_T"].double()}, "sin must be"),
        (lambda given: {"sin_T": given["sin_T"][:, 1:]}, "sin must be"),
        (lambda given: dict.fromkeys(("cos_T", "sin_T"), torch.zeros(2, 99)), "at most"),
        (lambda given: {"slots_T": given["slots_T"].int()}, "slots must be"),
        (lambda given: {"hidden_TD": torch.zeros(MODEL.hidden_size, 2).bfloat16().T}, "contiguous"),
        (lambda given: {"hidden_TD": given["hidden_TD"][:0]}, "must have rows"),
        (
            lambda given: {"rows": replace(given["rows"], tables=given["rows"].tables.int())},
            "tables must",
        ),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_name(spoil: Callable, words: str):
    steps, _ = _steps(_cache())
    meta = _meta(2, 0)
    cos_T, sin_T = rope_cos_sin(meta.positions_T, FREQUENCIES)
    given = {
        "hidden_TD": torch.zeros(2, MODEL.hidden_size).bfloat16(),
        "cos_T": cos_T,
        "sin_T": sin_T,
        "slots_T": meta.slot_mapping_T,
        "rows": paged_rows(meta),
    }
    steps.begin(**given)
    with pytest.raises(ValueError, match=words):
        steps.begin(**{**given, **spoil(given)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"slot_mapping_T": torch.tensor([NUM_BLOCKS * BLOCK, 1])}, "slots"),
        ({"decode_lens_B": torch.tensor([1, 49])}, "segments"),
        ({"decode_tables_BW": torch.tensor([[NUM_BLOCKS], [1]])}, "tables"),
    ],
)
def test_places_outside_the_cache_are_refused(change: dict[str, Tensor], words: str):
    steps, _ = _steps(_cache())
    meta = replace(_meta(2, 0), **change)
    step = steps.begin(
        torch.zeros(2, MODEL.hidden_size).bfloat16(),
        *rope_cos_sin(meta.positions_T, FREQUENCIES),
        meta.slot_mapping_T,
        paged_rows(meta),
    )
    with pytest.raises(ValueError, match=words):
        step.up_to_dispatch(0)


def test_layers_and_pages_that_do_not_go_together_are_refused():
    cache, plain = _cache(), _cache("int8")
    layers = [_layer(0), _layer(10)]
    pages = [cache.pages(0), cache.pages(1)]
    with pytest.raises(ValueError, match="a pair of pages each"):
        NativeSteps(layers, pages[:1])
    with pytest.raises(ValueError, match="of one shape"):
        NativeSteps(layers, [pages[0], (pages[1][0][1:], pages[1][1][1:])])
    with pytest.raises(ValueError, match="tiles"):
        NativeSteps(layers, [plain.pages(0), plain.pages(1)])
