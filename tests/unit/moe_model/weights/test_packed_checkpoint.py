"""A folder of packed weights is the same model, mapped; damaged or foreign files are refused."""

import json
from pathlib import Path

import pytest
import torch

from moe_model.backends.choice import choose_backend
from moe_model.kernels.cpu.packed import unpack
from moe_model.kernels.cpu.packing import pack_expert
from moe_model.tiny import write_tiny
from moe_model.weights import pack_checkpoint
from moe_model.weights.checkpoint import Checkpoint
from moe_model.weights.manifest import ensure_manifest
from moe_model.weights.pack_checkpoint import PackJob, write_packed
from moe_model.weights.packed_checkpoint import PackedCheckpoint, shard_of_layer
from moe_model.weights.packed_header import PACKED_FORMATS, PACKED_NAME, is_packed


def job(folder: Path, format: str = "int4", linear_format: str = "int8", **changes) -> PackJob:
    write_tiny(folder, fp8=changes.pop("fp8", True), shards=2, **changes)
    source = Checkpoint.open(folder)
    manifest = ensure_manifest(source)
    return PackJob(source=source, manifest=manifest, format=format, linear_format=linear_format)


@pytest.mark.parametrize(
    ("format", "fp8"),
    [(format, True) for format in PACKED_FORMATS]
    + [
        pytest.param(format, False, marks=pytest.mark.slow if "int4" in format else ())
        for format in PACKED_FORMATS
    ],
)
def test_is_what_packing_at_load_gives(tmp_path, format, fp8):
    made = job(tmp_path / "model", format, format, fp8=fp8)
    size = write_packed(made, tmp_path / "packed")
    found = PackedCheckpoint(tmp_path / "packed")
    assert is_packed(tmp_path / "packed")
    assert size >= made.size_bytes()
    assert found.manifest.checkpoint_id == made.manifest.checkpoint_id
    assert found.holds_attention
    found.verify_attention()
    config, source = made.config, made.source
    for layer_idx in range(config.num_layers):
        for expert_id in range(config.num_experts):
            assert found.holds_expert(layer_idx, expert_id)
            found.verify_expert(layer_idx, expert_id)
            expected = pack_expert(source.stored_expert(layer_idx, expert_id), format)
            for one, other in zip(found.expert(layer_idx, expert_id), expected, strict=True):
                assert one.format == other.format
                assert torch.equal(one.data, other.data)
        linears = choose_backend(torch.bfloat16).linears(format)
        mine, theirs = found.layer(layer_idx, linears), source.layer(layer_idx, linears)
        for key, value in vars(theirs).items():
            mapped = getattr(mine, key)
            if isinstance(value, torch.Tensor) and not value.is_mkldnn:
                value_found = mapped if isinstance(mapped, torch.Tensor) else unpack(mapped)
                assert torch.equal(value_found.to(value.dtype), value), key
            elif not isinstance(value, torch.Tensor | None):
                assert torch.equal(mapped.data, value.data), key
    for key in ("embedding", "final_norm"):
        assert torch.equal(found.outer(key, torch.bfloat16), source.outer(key, torch.bfloat16))
    head = source.lm_head(linears)
    if not isinstance(head, torch.Tensor):  # a tensor in oneDNN's layout cannot be compared
        assert torch.equal(unpack(found.lm_head(linears)), unpack(head))


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    made, out = job(tmp_path / "model"), tmp_path / "packed"
    real, calls = pack_checkpoint.pack_expert, []

    def failing(expert, format):
        calls.append(1)
        if len(calls) == made.config.num_experts + 1:  # in the second layer
            raise OSError("no more")
        return real(expert, format)

    monkeypatch.setattr(pack_checkpoint, "pack_expert", failing)
    with pytest.raises(OSError, match="no more"):
        write_packed(made, out)
    with pytest.raises(ValueError, match="not packed, or not completely"):
        PackedCheckpoint(out)
    first = (out / shard_of_layer(0)).stat().st_mtime_ns
    other = PackJob(source=made.source, manifest=made.manifest, format="int8", linear_format="int8")
    with pytest.raises(ValueError, match="begun for other weights or formats"):
        write_packed(other, out)
    write_packed(made, out)
    assert (out / shard_of_layer(0)).stat().st_mtime_ns == first
    PackedCheckpoint(out).verify_expert(1, 0)
    assert not list(out.glob("*.unfinished"))
    with pytest.raises(ValueError, match="finished packed weights already"):
        write_packed(made, out)


def test_folders_with_the_formats_former_names_are_read_and_finished(tmp_path, monkeypatch):
    made, out = job(tmp_path / "model", "bf16", "bf16"), tmp_path / "packed"

    def rename(path: Path) -> None:
        path.write_text(path.read_text().replace('"bf16"', '"bfloat16"'))

    with monkeypatch.context() as patch:
        patch.setattr(pack_checkpoint, "verify_attention", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_packed(made, out)
    (claim,) = out.glob("*.json.unfinished")
    rename(claim)
    write_packed(made, out)
    rename(out / PACKED_NAME)
    found = PackedCheckpoint(out)
    assert (found.format, found.linear_format) == ("bf16", "bf16")
    found.verify_expert(1, 0)
    assert found.expert(1, 0)[0].format == "bf16"


def test_strangers_and_small_disks_are_refused(tmp_path, monkeypatch):
    made = job(tmp_path / "model")
    with pytest.raises(ValueError, match="is the checkpoint itself"):
        write_packed(made, tmp_path / "model")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="is not empty"):
        write_packed(made, tmp_path / "other")
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(pack_checkpoint.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match="the disk has 1000 free"):
        write_packed(made, tmp_path / "packed")
    assert not (tmp_path / "packed" / shard_of_layer(0)).exists()


def test_damage_is_found(tmp_path):
    made, out = job(tmp_path / "model"), tmp_path / "packed"
    write_packed(made, out)
    shard = out / shard_of_layer(1)
    bytes_ = bytearray(shard.read_bytes())
    bytes_[-1] ^= 1  # the last expert's
    shard.write_bytes(bytes_)
    found = PackedCheckpoint(out)
    found.verify_expert(1, 0)
    with pytest.raises(ValueError, match=f"differs from {PACKED_NAME}"):
        found.verify_expert(1, made.config.num_experts - 1)
    shard.write_bytes(bytes_[:-64])
    with pytest.raises(ValueError, match="truncated"):
        PackedCheckpoint(out).expert(1, 0)
    raw = json.loads((out / PACKED_NAME).read_text())
    for key, value, message in (
        ("layout", 99, "quantise the checkpoint again"),
        ("checkpoint_id", "0" * 64, "not made from the checkpoint of expertmesh_manifest"),
        ("format", "int3", "format must be one of"),
        ("digests", None, "digests is missing"),
    ):
        (out / PACKED_NAME).write_text(json.dumps({**raw, key: value}))
        with pytest.raises(ValueError, match=message):
            PackedCheckpoint(out)


def test_another_shape_is_refused(tmp_path):
    """Panels of another size than the config says are never mapped."""
    write_packed(job(tmp_path / "model", format="int4"), tmp_path / "packed")
    raw = json.loads((tmp_path / "packed" / PACKED_NAME).read_text())
    (tmp_path / "packed" / PACKED_NAME).write_text(json.dumps({**raw, "format": "bf16"}))
    with pytest.raises(ValueError, match="expected U8"):
        PackedCheckpoint(tmp_path / "packed").expert(0, 0)


def test_a_damaged_source_is_not_packed(tmp_path):
    made = job(tmp_path / "model")
    write_tiny(tmp_path / "model", seed=1, fp8=True, shards=2)
    changed = PackJob(
        source=Checkpoint.open(tmp_path / "model"),
        manifest=made.manifest,
        format="int8",
        linear_format="int8",
    )
    with pytest.raises(ValueError, match="layer 0 expert 0 differs"):
        write_packed(changed, tmp_path / "packed")
