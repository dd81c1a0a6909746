"""FP8 NaN codes are refused when they are loaded, whatever the weights will be held in."""

from pathlib import Path

import pytest
import torch

from moe_model.backends.choice import choose_backend
from moe_model.formats import FORMATS
from moe_model.kernels.cpu import library
from moe_model.quant import has_nan_codes
from moe_model.weights.checkpoint import Checkpoint
from moe_model.weights.manifest import build_manifest
from moe_model.weights.open import put_expert
from moe_model.weights.pack_checkpoint import PackJob, write_packed
from tests.support.moe_model.checkpoint_surgery import SINGLE, W1, change_tensors, write_small

CPU = torch.device("cpu")
W2, Q = W1.replace("w1", "w2"), "model.layers.1.self_attn.q_proj.weight"
NAN_CODES = (0x7F, 0xFF)


def spoilt(folder: Path, tensor: str, code: int) -> Checkpoint:
    """A sound FP8 checkpoint but for the last code of one tensor."""
    write_small(folder)
    change_tensors(folder, lambda t: t[tensor].view(torch.uint8)[-1, -1].fill_(code))
    return Checkpoint.open(folder)


def rows_of(weight_format: str) -> torch.dtype:
    return torch.float32 if weight_format == "f32" else torch.bfloat16


@pytest.mark.parametrize("code", NAN_CODES)
@pytest.mark.parametrize("tensor", [W1, W2])
@pytest.mark.parametrize("weight_format", FORMATS)
def test_an_expert_with_one_is_refused(tmp_path: Path, weight_format: str, tensor: str, code: int):
    checkpoint = spoilt(tmp_path / "model", tensor, code)
    held = choose_backend(rows_of(weight_format)).room_for_experts(
        2, checkpoint.config, weight_format
    )
    put_expert(checkpoint, held, 0, 1, 1)  # its neighbour is sound
    with pytest.raises(ValueError, match="NaN codes") as error:
        put_expert(checkpoint, held, 1, 1, 2)
    assert tensor in str(error.value)
    assert SINGLE in str(error.value)


@pytest.mark.parametrize("code", NAN_CODES)
@pytest.mark.parametrize("weight_format", FORMATS)
def test_a_projection_with_one_is_refused(tmp_path: Path, weight_format: str, code: int):
    checkpoint = spoilt(tmp_path / "model", Q, code)
    linears = choose_backend(rows_of(weight_format)).linears(weight_format)
    checkpoint.layer(0, linears)
    with pytest.raises(ValueError, match=f"{Q}: holds FP8 NaN codes"):
        checkpoint.layer(1, linears)


@pytest.mark.skipif(library.load() is None, reason="packed weights are for the native kernels")
@pytest.mark.parametrize("weight_format", [name for name in FORMATS if name != "f32"])
def test_none_gets_into_a_packed_folder(tmp_path: Path, weight_format: str):
    checkpoint = spoilt(tmp_path / "model", W2, 0x7F)
    job = PackJob(
        source=checkpoint,
        manifest=build_manifest(checkpoint),
        format=weight_format,
        linear_format="bf16",
    )
    with pytest.raises(ValueError, match=f"{W2}: holds FP8 NaN codes"):
        write_packed(job, tmp_path / "packed")


@pytest.mark.parametrize("code", NAN_CODES)
def test_one_is_found_at_either_end_of_a_large_matrix(code: int):
    codes = torch.full((1031, 517), 0x7E, dtype=torch.uint8)
    assert not has_nan_codes(codes.view(torch.float8_e4m3fn))
    for place in (0, 300_000, -1):
        spoiled = codes.clone()
        spoiled.view(-1)[place] = code
        assert has_nan_codes(spoiled.view(torch.float8_e4m3fn))
        assert has_nan_codes(spoiled.view(torch.float8_e4m3fn).t())
