"""Whatever layout holds the experts, their answers are the reference's."""

import pytest
import torch

from moe_model.backends.choice import choose_backend
from moe_model.formats import FORMATS, choose_format, piece_bytes
from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.experts import NativeExperts, UnpackedExperts
from moe_model.maths.experts import combine_rows
from moe_model.maths.linear import linear
from moe_model.maths.linears import PlainLinears
from moe_model.numerics import is_invariant
from moe_model.reference import load_experts
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint

needs_native = pytest.mark.skipif(library.load() is None, reason="no native kernels here")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder, seed=3, fp8=True, hidden_size=72, intermediate_size=40, num_local_experts=6)
    return Checkpoint.open(folder)


def pairs(num_rows: int, num_experts: int, top_k: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.stack(
        [torch.randperm(num_experts, generator=generator)[:top_k] for _ in range(num_rows)]
    )
    rows = torch.arange(num_rows).repeat_interleave(top_k)
    return rows, ids.sort(dim=1).values.flatten(), torch.rand(num_rows * top_k, generator=generator)


@pytest.mark.parametrize("kind", [NativeExperts, UnpackedExperts])
def test_packed_experts_answer_as_the_reference(checkpoint: Checkpoint, kind):
    if kind is NativeExperts and library.load() is None:
        pytest.skip("no native kernels here")
    reference = load_experts(checkpoint, 0, torch.bfloat16)
    held = kind(6, checkpoint.config, "bf16")
    for expert_id in range(6):
        held.put(expert_id, checkpoint.stored_expert(0, expert_id))
    hidden = torch.randn(17, 72, generator=torch.Generator().manual_seed(1)).bfloat16()
    arguments = (hidden, *pairs(17, 6, 2))
    rows, expected = held.rows(*arguments), reference.rows(*arguments)
    torch.testing.assert_close(rows, expected, atol=2e-2, rtol=2e-2)
    assert (rows == expected).float().mean() > 0.9, "the same rounding points: nearly every bit"
    assert torch.equal(held.sums(*arguments), combine_rows(rows, arguments[1], 17))


@needs_native
def test_bfloat16_on_this_cpu_runs_natively_and_float32_on_torch(checkpoint: Checkpoint):
    backend, plain = choose_backend(torch.bfloat16), choose_backend(torch.float32)
    assert isinstance(backend.room_for_experts(2, checkpoint.config, "bf16"), NativeExperts)
    chosen = backend.numerics("bf16")
    assert is_invariant(chosen.id)
    assert chosen.id.startswith("bfloat16/native-")
    assert not is_invariant(plain.numerics("f32").id)
    assert "bfloat16 rows" in plain.why
    assert plain.numerics("f32").why == plain.why


@needs_native
def test_native_linears_are_the_plain_ones(checkpoint: Checkpoint):
    held = checkpoint.layer(0, choose_backend(torch.bfloat16).linears("bf16"))
    plain = checkpoint.layer(0, PlainLinears(torch.bfloat16))
    rows = torch.randn(9, 72, generator=torch.Generator().manual_seed(1)).bfloat16()
    for name in ("qkv_AD", "routing_ED"):
        given = rows.float() if name == "routing_ED" else rows
        torch.testing.assert_close(
            linear(given, getattr(held, name)),
            linear(given, getattr(plain, name)),
            atol=2e-2,
            rtol=2e-2,
        )


def test_a_format_fits_its_compute_dtype_and_device():
    assert choose_format("auto", "--expert-dtype", "f32") == "f32"
    assert choose_format("int8", "--expert-dtype", "bf16") == "int8"
    with pytest.raises(ValueError, match=r"--expert-dtype int8 computes in bf16, but .* f32"):
        choose_format("int8", "--expert-dtype", "f32")
    with pytest.raises(ValueError, match="--linear-dtype f32 computes in f32"):
        choose_format("f32", "--linear-dtype", "bf16")
    with pytest.raises(ValueError, match="--linear-dtype int8 is held on cpu; on cuda"):
        choose_format("int8", "--linear-dtype", "bf16", "cuda")


def test_a_format_counts_its_scales_and_padding(checkpoint: Checkpoint):
    """Of w1 and w3 [40, 72], w2 [72, 40]: in panels of 32 outputs, inputs in groups."""
    sizes = {name: piece_bytes(checkpoint.config, name) for name in FORMATS}
    assert sizes["f32"] == 3 * 72 * 40 * 4
    assert sizes["bf16"] == 2 * (2 * 64 * 72 + 96 * 40)
    assert sizes["int8"] == sizes["fp8"] == (2 * 64 + 96) * (128 + 4)
    assert sizes["int4"] == 2 * 64 * 3 * 18 + 96 * 2 * 18
