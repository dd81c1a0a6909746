"""What dtypes and formats flags mean for a checkpoint and for a folder of packed weights."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from expert_svc.weight_store import WeightStore
from moe_model.backends.choice import choose_backend
from moe_model.families.known import load_config
from moe_model.kernels.cpu import library
from moe_model.kernels.torch.backend import TorchBackend
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from moe_model.weights.held_formats import HeldFormats, held_formats
from moe_model.weights.manifest import ensure_manifest
from moe_model.weights.open import open_weights, require_kernels, verify_attention
from moe_model.weights.pack_checkpoint import PackJob, write_packed
from moe_model.weights.packed_checkpoint import PackedCheckpoint, shard_of_layer, verify_packed
from moe_model.weights.packed_header import PACKED_NAME
from tests.support.moe_model.kernel_cases import needs_kernels


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("formats") / "model"
    write_tiny(folder, fp8=True)
    return folder


@pytest.fixture(scope="module")
def packed(model: Path) -> Path:
    source = Checkpoint.open(model)
    job = PackJob(
        source=source, manifest=ensure_manifest(source), format="int8", linear_format="fp8"
    )
    write_packed(job, model.parent / "packed")
    return model.parent / "packed"


def test_a_checkpoint_is_held_as_the_flags_say(model: Path):
    config = load_config(model)
    auto = config.auto_dtype
    assert held_formats(model, config) == HeldFormats(
        compute_dtype=auto, experts=auto, linears=auto
    )
    found = held_formats(model, config, dtype="bf16", expert_dtype="int4", linear_dtype="int8")
    assert found == HeldFormats(compute_dtype="bf16", experts="int4", linears="int8")
    with pytest.raises(ValueError, match="--expert-dtype int8 computes in bf16"):
        held_formats(model, config, dtype="f32", expert_dtype="int8")


def test_packed_weights_are_held_as_they_are(packed: Path):
    """auto and the folder's own formats are the same; the model's own dtype does not matter."""
    config = load_config(packed)
    held = HeldFormats(compute_dtype="bf16", experts="int8", linears="fp8")
    assert held_formats(packed, config) == held
    flags = {"dtype": "bf16", "expert_dtype": "int8", "linear_dtype": "fp8"}
    assert held_formats(packed, config, **flags) == held


@pytest.mark.parametrize(
    "flags,message",
    [
        ({"dtype": "f32"}, "--dtype f32: .* computes in bf16; use the checkpoint"),
        ({"expert_dtype": "int4"}, "--expert-dtype int4: .* is packed in int8; use the checkpoint"),
        ({"expert_dtype": "f32"}, "--expert-dtype f32: .* is packed in int8"),
        ({"linear_dtype": "int8"}, "--linear-dtype int8: .* is packed in fp8"),
        ({"device": "cuda"}, "--device cuda: .* is packed in int8, for which only cpu have kern"),
    ],
)
def test_flags_that_contradict_the_folder_are_refused(packed: Path, flags: dict, message: str):
    with pytest.raises(ValueError, match=message):
        held_formats(packed, load_config(packed), **flags)


@pytest.mark.parametrize("formats", [("int4", "bf16"), ("fp8", "int4_g128"), ("bf16", "fp8")])
def test_what_gpus_have_kernels_for_is_held_there_as_it_is(
    packed: Path, tmp_path: Path, formats: tuple[str, str]
):
    shutil.copytree(packed, tmp_path / "copy")
    header = tmp_path / "copy" / PACKED_NAME
    names = dict(zip(("format", "linear_format"), formats, strict=True))
    header.write_text(json.dumps({**json.loads(header.read_text()), **names}))
    found = held_formats(tmp_path / "copy", load_config(packed), device="cuda")
    assert (found.experts, found.linears) == formats


@needs_kernels
def test_both_kinds_of_folder_are_opened_alike(model: Path, packed: Path):
    (checkpoint, manifest), (mapped, same) = (
        open_weights(folder, partial=False) for folder in (model, packed)
    )
    assert isinstance(checkpoint, Checkpoint)
    assert isinstance(mapped, PackedCheckpoint)
    assert manifest.checkpoint_id == same.checkpoint_id
    verify_attention(mapped, same)


def test_without_native_kernels_packed_weights_are_refused(packed: Path, monkeypatch):
    weights, manifest = open_weights(packed, partial=True)
    monkeypatch.setattr(library, "load", lambda: None)
    with pytest.raises(ValueError, match="packed weights are for native kernels"):
        WeightStore(weights, manifest, choose_backend(torch.bfloat16))
    with pytest.raises(ValueError, match="packed weights are for native kernels"):
        require_kernels(weights, TorchBackend(torch.bfloat16, torch.device("cuda"), "no Triton"))


def test_packed_weights_are_no_checkpoint(packed: Path):
    with pytest.raises(ValueError, match="holds packed weights; give the checkpoint"):
        Checkpoint.open(packed, partial=True)


@needs_kernels
def test_a_part_serves_only_what_it_holds(model: Path, tmp_path: Path, monkeypatch):
    """Packed from a part: a pool starts from it, all experts in one process do not."""
    source = Checkpoint.open(model)
    monkeypatch.setattr(type(source), "holds_expert", lambda self, layer_idx, e: layer_idx == 0)
    monkeypatch.setattr(PackJob, "has_attention", False)
    job = PackJob(
        source=source, manifest=ensure_manifest(source), format="int8", linear_format="int8"
    )
    write_packed(job, tmp_path / "part")
    weights, manifest = open_weights(tmp_path / "part", partial=True)
    with pytest.raises(ValueError, match="holds experts only"):
        verify_attention(weights, manifest)
    with pytest.raises(ValueError, match=r"layer 1 expert 0 is missing .*from a part"):
        open_weights(tmp_path / "part", partial=False)


def test_every_byte_of_packed_weights_is_verified(packed: Path):
    seen: list[tuple[int, int]] = []
    manifest = verify_packed(packed, lambda done, total: seen.append((done, total)))
    assert manifest.checkpoint_id == PackedCheckpoint(packed).manifest.checkpoint_id
    assert seen[-1][0] == seen[-1][1]
    shard = packed / shard_of_layer(1)
    whole = shard.read_bytes()
    try:
        shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(ValueError, match="a damaged file"):
            verify_packed(packed)
    finally:
        shard.write_bytes(whole)
