"""On a card, at M2's width: a row's bits depend on no other row, tile or cut of a prompt."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attention_svc.kv.cache import KvCache
from moe_model.config import ModelConfig
from moe_model.families.known import parse_config
from moe_model.kernels.cuda.attention import CudaAttention, DecodeRows
from moe_model.kernels.cuda.backend import CudaBackend
from moe_model.kernels.cuda.codes import FORMATS as CODES
from moe_model.kernels.cuda.codes import encode
from moe_model.kernels.cuda.experts import CudaExperts
from moe_model.kernels.cuda.graphs.tile_numbers import TileNumbers
from moe_model.kernels.cuda.linear import CudaLinear, RoutingMatrix
from moe_model.maths.step_meta import ChunkMeta, StepMeta
from moe_model.quant import StoredMatrix, quantise

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DEVICE = torch.device("cuda")
FORMATS = ("bf16", "fp8", "int4", "int4_g128")
MANY = 2048


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    from bench.engine.gpu import M2

    return parse_config({**M2, "num_local_experts": 64, "num_hidden_layers": 1})


def matrix(outputs: int, inputs: int) -> StoredMatrix:
    values = torch.randn(outputs, inputs, device=DEVICE).to(torch.float8_e4m3fn)
    scales = torch.full((-(-outputs // 128), -(-inputs // 128)), inputs**-0.5, device=DEVICE)
    return StoredMatrix(values=values, scales=scales, block=(128, 128), where="w")


def rows(config: ModelConfig, count: int) -> Tensor:
    return torch.randn(count, config.hidden_size, device=DEVICE).bfloat16()


@pytest.mark.parametrize("name", FORMATS)
def test_experts(config: ModelConfig, name: str) -> None:
    held = CudaExperts(config.num_experts, config, name, DEVICE)
    for codes in (held.up_codes, held.down_codes):
        if codes.dtype == torch.bfloat16:
            codes.normal_(0, 0.02)
        else:
            codes.random_(0, 2**31)
            if name == "fp8":  # magnitudes below 2
                codes.bitwise_and_(0x3F3F3F3F)
    for scales in (held.up_scales, held.down_scales):
        scales.fill_(0.01)
    hidden = rows(config, MANY)
    logits = torch.randn(MANY, config.num_experts, device=DEVICE)
    ids = logits.topk(config.top_k).indices.sort(dim=-1).values.int()
    weights = torch.rand(MANY, config.top_k, device=DEVICE)

    def found(*part: Tensor) -> Tensor:
        return held.routed_parts(*part).values.view(-1, config.top_k, config.hidden_size)

    whole = found(hidden, ids, weights)
    assert whole.isfinite().all()
    for count in (1, 2, 3, 8, 17, 64, 129, 600):
        part = slice(7, 7 + count)
        alone = found(hidden[part].clone(), ids[part].clone(), weights[part].clone())
        assert torch.equal(alone, whole[part]), count
    four = found(hidden.repeat(4, 1), ids.repeat(4, 1), weights.repeat(4, 1))
    assert torch.equal(four[MANY : 2 * MANY], whole)


@pytest.mark.parametrize("name", [*FORMATS, "routing"])
def test_linears(config: ModelConfig, name: str) -> None:
    stored = matrix(8192, config.hidden_size)
    if name == "routing":
        held = RoutingMatrix.of(replace(stored, values=stored.values[:256]), DEVICE).coded
    else:
        held = CudaLinear.of([stored], name, DEVICE)
    hidden = rows(config, MANY)
    whole = held.linear(hidden, torch.float32)
    for count in (1, 9, 17, 33, 64, 65, 129):
        part = slice(7, 7 + count)
        assert torch.equal(held.linear(hidden[part], torch.float32), whole[part]), count


@pytest.mark.parametrize("kv_dtype", ["bf16", "int8"])
def test_attention(config: ModelConfig, kv_dtype: str) -> None:
    block, num_blocks, start, count = 16, 256, 2500, 1000
    backend = CudaBackend(torch.bfloat16, DEVICE)
    cache = KvCache(
        backend.kv_layout(kv_dtype, config, block),
        num_layers=1, num_blocks=num_blocks, block_size=block, device=DEVICE,
    )  # fmt: skip
    shape = (num_blocks * block, config.num_kv_heads, config.head_dim)
    keys, values = (torch.randn(shape, device=DEVICE).bfloat16() for _ in range(2))
    cache.store(0, keys, values, torch.arange(shape[0], device=DEVICE))
    attention = backend.attention(config, cache)
    assert isinstance(attention, CudaAttention)
    table = torch.randperm(num_blocks)
    queries = torch.randn(count, config.num_heads, config.head_dim, device=DEVICE).bfloat16()
    nothing = torch.empty(0, dtype=torch.int64)

    def chunk(first: int, stop: int) -> Tensor:
        made = ChunkMeta(
            rows=slice(0, stop - first),
            positions_T=nothing,
            block_table_W=table,
            num_cached=start + stop,
        )
        meta = StepMeta(
            token_ids_T=nothing, positions_T=nothing, slot_mapping_T=nothing, num_decode=0,
            decode_tables_BW=nothing.view(0, 0), decode_lens_B=nothing, chunks=(made,),
            logit_rows_B=nothing, open_rows_C=nothing, is_decode=False,
        )  # fmt: skip
        return attention.plan(meta)(0, queries[first:stop])

    whole = chunk(0, count)
    assert whole.isfinite().all()
    for first, stop in ((0, 3), (100, 150), (300, 600), (10, 400)):  # tiles of all sizes
        assert torch.equal(chunk(first, stop), whole[first:stop]), (first, stop)
    positions_T = torch.arange(start + 600, start + 700)
    part = slice(600, 700)
    made = ChunkMeta(
        rows=slice(0, 100), positions_T=positions_T, block_table_W=table, num_cached=start + 700
    )
    meta = StepMeta(
        token_ids_T=positions_T, positions_T=positions_T, slot_mapping_T=positions_T, num_decode=0,
        decode_tables_BW=nothing.view(0, 0), decode_lens_B=nothing, chunks=(made,),
        logit_rows_B=nothing, open_rows_C=nothing, is_decode=False,
    )  # fmt: skip
    sent = TileNumbers(attention.tile_rows, num_blocks, DEVICE)
    shape = sent.send(meta)
    assert shape is not None
    filled = queries.new_zeros((shape.rows, *queries.shape[1:]))
    filled[:100] = queries[part]
    tiled = attention.of_tiles(sent.given(shape).tiles)(0, filled)
    assert torch.equal(tiled[:100], whole[part])
    lens_B = torch.arange(500, 509) + start + 1
    decoded = torch.empty_like(queries[500:509])
    rows_of = DecodeRows.of(table.expand(9, -1), lens_B, DEVICE)
    attention.decode(0, queries[500:509], rows_of, decoded)
    assert torch.equal(decoded.flatten(1), whole[500:509])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(1536, 3072), (130, 257), (35, 90), (1, 1)])
def test_codes_are_the_cpus(name: str, shape: tuple[int, int]) -> None:
    """Whoever packs a checkpoint, pools hold the same numbers."""
    codes, scales = quantise(torch.randn(shape) / 30)
    stored = StoredMatrix(values=codes, scales=scales, block=(128, 128), where="w")
    found, expected = (encode(stored, CODES[name], torch.device(on)) for on in ("cuda", "cpu"))
    assert torch.equal(found.codes.cpu(), expected.codes)
    assert torch.equal(found.scales.cpu(), expected.scales)
