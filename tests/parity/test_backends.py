"""Every backend computes what the reference does: its parts, and a whole tiny model."""

import asyncio
import dataclasses

import pytest
import torch
from torch import Tensor

from attention_svc.engine.layer_stack import LayerStack
from attention_svc.kv.cache import KvCache
from attention_svc.sequence.sequence import Sequence
from moe_model.backends.backend import Backend
from moe_model.backends.choice import FASTER, choose_backend
from moe_model.formats import FORMATS, choose_format
from moe_model.kernels.torch.backend import TorchBackend
from moe_model.maths.attention import attend
from moe_model.maths.expert_calls import CallRows
from moe_model.maths.experts import run_experts
from moe_model.maths.layer import PlainLayer, up_to_dispatch
from moe_model.maths.linear import linear
from moe_model.maths.linears import PlainLinears
from moe_model.maths.rope import rope_cos_sin, rope_frequencies
from moe_model.maths.step_meta import ChunkMeta, StepMeta
from moe_model.numerics import DTYPES, dtype_name, name_on_wire
from moe_model.reference import ReferenceModel, load_experts
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from tests.support.attention_svc.engine_harness import GREEDY, run_to_end
from tests.support.moe_model.tiny_sizes import ODD

DEVICES = ("cpu", "cuda")
KINDS = [
    *(("torch", device, dtype) for device in DEVICES for dtype in DTYPES),
    *((device, device, dtype) for device in FASTER for dtype in DTYPES),
]
"""Name, device, compute dtype: torch everywhere, and faster backends where they exist."""
OFF = {"f32": 1e-5, "bf16": 2e-2, "fp8": 1e-2, "int8": 3e-2, "int4": 0.2, "int4_g128": 0.25}
"""Largest error by format, relative to four times the root mean square of the answers."""
NUM_ROWS, BLOCK = 9, 16


def relative_error(found: Tensor, expected: Tensor) -> float:
    wide = expected.float().cpu()
    return float((found.float().cpu() - wide).abs().max() / (4 * wide.square().mean().sqrt()))


@pytest.fixture(params=KINDS, ids="-".join)
def backend(request: pytest.FixtureRequest) -> Backend:
    name, device, dtype = request.param
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if name == "torch":
        return TorchBackend(DTYPES[dtype], torch.device(device))
    why = FASTER[device].why_not(DTYPES[dtype])
    if why:
        pytest.skip(f"no {name} backend for {dtype}: {why}")
    return choose_backend(DTYPES[dtype], device)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder, seed=9, fp8=True, **ODD)
    return Checkpoint.open(folder)


def rows(backend: Backend, *shape: int, seed: int = 0) -> Tensor:
    found = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return found.to(backend.device, backend.dtype)


def formats_of(backend: Backend) -> list[str]:
    """Those that the flags allow for this dtype and device; on CUDA torch alone holds no codes."""
    allowed = []
    plain = type(backend) is TorchBackend and backend.device.type != "cpu"
    for name in DTYPES if plain else FORMATS:
        try:
            allowed.append(
                choose_format(name, "--x", dtype_name(backend.dtype), backend.device.type)
            )
        except ValueError:
            continue
    return allowed


def test_what_computes_has_an_id_and_a_reason(backend: Backend) -> None:
    for name in formats_of(backend):
        numerics = backend.numerics(name)
        assert numerics.id.count("/") == 2
        assert numerics.id.startswith(name_on_wire(name))
    assert backend.set_threads(1) == 1
    assert backend.set_threads(2) == 2


def test_linears_in_every_format_multiply_as_the_stored_weights(
    backend: Backend, checkpoint: Checkpoint
) -> None:
    hidden_TD = rows(backend, NUM_ROWS, checkpoint.config.hidden_size)
    stored = checkpoint.layer(0, PlainLinears(torch.float32))
    assert isinstance(stored.qkv_AD, Tensor)
    assert isinstance(stored.routing_ED, Tensor)
    for name in formats_of(backend):
        held = checkpoint.layer(0, backend.linears(name)).to(backend.device)
        exact = hidden_TD.float().cpu() @ stored.qkv_AD.T
        assert relative_error(linear(hidden_TD, held.qkv_AD, torch.float32), exact) < OFF[name], (
            name
        )
        exact = hidden_TD.float().cpu() @ stored.routing_ED.T
        assert relative_error(linear(hidden_TD.float(), held.routing_ED), exact) < OFF["f32"]


def test_experts_in_every_format_answer_as_the_reference(
    backend: Backend, checkpoint: Checkpoint
) -> None:
    config = checkpoint.config
    reference = load_experts(checkpoint, 1, torch.float32)
    hidden_TD = rows(backend, NUM_ROWS, config.hidden_size)
    ids_TK = torch.tensor([[t % 5, 5] for t in range(NUM_ROWS)], dtype=torch.int32)
    weights_TK = torch.rand((NUM_ROWS, 2), generator=torch.Generator().manual_seed(1))
    expected = run_experts(hidden_TD.float().cpu(), ids_TK, weights_TK, reference)
    ids_TK, weights_TK = ids_TK.to(backend.device), weights_TK.to(backend.device)
    for name in formats_of(backend):
        held = backend.room_for_experts(config.num_experts, config, name)
        for expert_id in range(config.num_experts):
            held.put(expert_id, checkpoint.stored_expert(1, expert_id))
        sums_TD = torch.full_like(hidden_TD, float("nan"), dtype=torch.float32)
        held.routed_sums(hidden_TD, ids_TK, weights_TK, sums_TD)
        assert relative_error(sums_TD, expected) < OFF[name], name
        assert torch.equal(run_experts(hidden_TD, ids_TK, weights_TK, held), sums_TD), name


@pytest.mark.parametrize("num_rows", [1, 5, 150])
def test_calls_are_carried_to_the_experts_and_back(
    backend: Backend, checkpoint: Checkpoint, num_rows: int
) -> None:
    """Rows of one expert, of two and of none; twice, since the second call may be replayed."""
    config = checkpoint.config
    for name in formats_of(backend):
        calls = backend.expert_calls(config, name)
        held = backend.room_for_experts(3, config, name)
        for slot in range(3):
            held.put(slot, checkpoint.stored_expert(1, slot))
        calls.prepare(held)
        for seed in range(2):
            hidden_ND = rows(backend, num_rows, config.hidden_size, seed=seed).cpu()
            counts_N = (torch.arange(num_rows) + 1 + seed) % 3
            pairs_M = torch.arange(num_rows).repeat_interleave(counts_N)
            slots_M = torch.cat([torch.arange(3)[-n:] if n else torch.arange(0) for n in counts_N])
            weights_M = torch.rand(len(pairs_M))
            call = CallRows(hidden_ND, pairs_M, slots_M, weights_M)
            given = [x.to(backend.device) for x in (hidden_ND, pairs_M, slots_M, weights_M)]
            for per_pair, compute in ((False, held.sums), (True, held.rows)):
                found = calls.run(held, call, slots_M.numpy(), per_pair=per_pair)
                assert found.is_cpu
                assert torch.equal(found, compute(*given).cpu()), (name, per_pair)


def test_a_layer_gives_the_definitions_rows(backend: Backend, checkpoint: Checkpoint) -> None:
    """Except for near ties in the choice of experts: the weights of most rows are equal."""
    config, dtype = checkpoint.config, dtype_name(backend.dtype)
    exact = PlainLayer(checkpoint.layer(0, PlainLinears(torch.float32)), config)
    held = checkpoint.layer(0, backend.linears(dtype)).to(backend.device)
    layer = backend.hold_layer(held, config)
    hidden_TD = rows(backend, NUM_ROWS, config.hidden_size)
    cos_sin = rope_cos_sin(
        torch.arange(NUM_ROWS), rope_frequencies(config.rotary_dim, config.rope_theta)
    )

    def mixed(q_THP: Tensor, k_TGP: Tensor, v_TGP: Tensor) -> Tensor:
        spread = v_TGP.repeat_interleave(config.num_heads // config.num_kv_heads, 1)
        return (q_THP * 0.5 + k_TGP.sum(1, keepdim=True) * 0.1 + spread).flatten(1)

    found = up_to_dispatch(hidden_TD, layer, *(x.to(backend.device) for x in cos_sin), mixed)
    expected = up_to_dispatch(hidden_TD.float().cpu(), exact, *cos_sin, mixed)
    for one, other in zip(found[:2], expected[:2], strict=True):
        assert one.dtype == backend.dtype
        assert relative_error(one, other) < OFF[dtype]
    same = (found[2].cpu() == expected[2]).all(dim=1)
    assert same.float().mean() > 0.7
    assert relative_error(found[3].cpu()[same], expected[3][same]) < OFF[dtype]


@pytest.mark.parametrize("kv_dtype", ["auto", "bf16", "int8"])
def test_attention_over_pages_is_attention(
    backend: Backend, checkpoint: Checkpoint, kv_dtype: str
) -> None:
    """A decode row over 40 positions beside a chunk of 8 rows on 22."""
    config, device = checkpoint.config, backend.device
    cache = KvCache(
        backend.kv_layout(kv_dtype, config, BLOCK),
        num_layers=2,
        num_blocks=8,
        block_size=BLOCK,
        device=device,
    )
    heads = (config.num_kv_heads, config.head_dim)
    tables = {"decode": torch.tensor([5, 1, 7]), "chunk": torch.tensor([2, 6])}
    lens = {"decode": 40, "chunk": 30}
    known = {}
    for seed, (name, table_W) in enumerate(tables.items()):
        k, v = rows(backend, 2, lens[name], *heads, seed=seed)
        at = torch.arange(lens[name])
        cache.store(1, k, v, (table_W[at // BLOCK] * BLOCK + at % BLOCK).to(device))
        known[name] = (k.float().cpu(), v.float().cpu())
    nothing = torch.tensor([], dtype=torch.int64, device=device)
    chunk = ChunkMeta(
        rows=slice(1, 9),
        positions_T=torch.arange(22, 30, device=device),
        block_table_W=tables["chunk"].to(device),
        num_cached=30,
    )
    meta = StepMeta(
        token_ids_T=torch.zeros(9, dtype=torch.int64, device=device),
        positions_T=nothing,
        slot_mapping_T=nothing,
        num_decode=1,
        decode_tables_BW=tables["decode"][None].to(device),
        decode_lens_B=torch.tensor([40], device=device),
        chunks=(chunk,),
        logit_rows_B=nothing,
        open_rows_C=nothing,
        is_decode=False,
    )
    q_THP = rows(backend, 9, config.num_heads, config.head_dim, seed=7)
    found = backend.attention(config, cache).plan(meta)(1, q_THP)
    wide = q_THP.float().cpu()
    expected = torch.cat(
        (
            attend(wide[:1], *known["decode"], torch.tensor([39])),
            attend(wide[1:], *known["chunk"], torch.arange(22, 30)),
        )
    )
    coarse = {"auto": OFF[dtype_name(backend.dtype)], "bf16": OFF["bf16"], "int8": OFF["int8"]}
    assert relative_error(found, expected) < coarse[kv_dtype]


def test_a_whole_models_logits_are_the_references(
    backend: Backend, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every step of a greedy answer: the prompt in chunks, then token by token."""
    monkeypatch.setattr(
        "tests.support.attention_svc.engine_harness.choose_backend", lambda *_: backend
    )
    prompt = [7 + 3 * i for i in range(40)]
    answer = Sequence(
        request_id="a",
        prompt_ids=prompt,
        output_ids=[],
        stop_ids=frozenset(),
        params=dataclasses.replace(GREEDY, max_tokens=12),
    )
    seen: list[Tensor] = []

    def listen(stack: LayerStack) -> None:
        head = stack._logits

        def listening(hidden_BD: Tensor) -> Tensor:
            logits_BV = head(hidden_BD)
            seen.extend(logits_BV.cpu())
            return logits_BV

        stack._logits = listening

    asyncio.run(
        run_to_end(
            checkpoint,
            [answer],
            weight_format=dtype_name(backend.dtype),
            max_batch_tokens=16,
            dtype=backend.dtype,
            device=backend.device.type,
            prepare=listen,
        )
    )
    expected = ReferenceModel(checkpoint).logits([*prompt, *answer.output_ids[:-1]])[39:]
    # Where two experts are almost tied bfloat16 may choose the other: the median row tells.
    errors = sorted(map(relative_error, seen, expected))
    assert len(errors) == 12
    assert errors[6] < OFF[dtype_name(backend.dtype)]
