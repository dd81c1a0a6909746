"""How is a checkpoint written in the kernels' own layout? File by file, so it can be resumed.

moe_model/weights/packed_checkpoint.py describes the folder and reads it.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from moe_model.config import ModelConfig
from moe_model.formats import this_name
from moe_model.json_files import read_json
from moe_model.kernels.cpu.packed import PackedMatrix
from moe_model.kernels.cpu.packing import pack_expert, pack_linear
from moe_model.weights import packed_checkpoint as packed
from moe_model.weights.checkpoint import Checkpoint
from moe_model.weights.manifest import (
    MANIFEST_NAME,
    Manifest,
    Progress,
    save_manifest,
    verify_attention,
    verify_piece,
)
from moe_model.weights.packed_checkpoint import Panels
from moe_model.weights.packed_header import LAYOUT_VERSION, PACKED_NAME
from moe_model.weights.safetensors_file import SafetensorsFile, write_shard

UNFINISHED = ".unfinished"


@dataclass(frozen=True, kw_only=True)
class PackJob:
    """What is packed into which formats."""

    source: Checkpoint
    manifest: Manifest
    format: str  # of the experts
    linear_format: str

    @property
    def config(self) -> ModelConfig:
        return self.source.config

    def experts(self, layer_idx: int) -> list[int]:
        """Experts of a layer that the source has."""
        return [e for e in range(self.config.num_experts) if self.source.holds_expert(layer_idx, e)]

    @property
    def has_attention(self) -> bool:
        return all(map(self.source.holds, self.source.names.attention()))

    def size_bytes(self) -> int:
        """Bytes of all files without their headers."""
        one = sum(panels.size_bytes for panels in packed.expert_panels(self.config, self.format, 0))
        total = one * sum(len(self.experts(layer)) for layer in range(self.config.num_layers))
        if self.has_attention:
            total += sum(size for _, _, size in _attention_entries(self).values())
        return total


def write_packed(job: PackJob, out: Path, progress: Progress | None = None) -> int:
    """Write the folder, `PACKED_NAME` last; returns its bytes.

    Files that an interrupted call for the same weights and formats has finished are kept.

    Raises:
        ValueError: the source is damaged, `out` holds something else, or its disk is too small.
    """
    _claim(job, out)
    layers = [layer for layer in range(job.config.num_layers) if job.experts(layer)]
    steps, digests = len(layers) + 1, {}
    for done, layer_idx in enumerate(layers):
        path = out / packed.shard_of_layer(layer_idx)
        if not path.exists():
            write_shard(path, _layer_entries(job, layer_idx), _layer_bytes(job, layer_idx))
        file = SafetensorsFile(path)
        for expert_id in job.experts(layer_idx):
            names = [p.name for p in packed.expert_panels(job.config, job.format, expert_id)]
            digests[f"{layer_idx}.{expert_id}"] = packed.digest(file, names)
        if progress:
            progress(done + 1, steps)
    if job.has_attention:
        path = out / packed.ATTENTION_SHARD
        if not path.exists():
            verify_attention(job.source, job.manifest)
            write_shard(path, _attention_entries(job), _attention_bytes(job))
        names = packed.attention_names(job.config)
        digests["attention"] = packed.digest(SafetensorsFile(path), names)
    shutil.copyfile(job.source.folder / "config.json", out / "config.json")
    save_manifest(job.manifest, out / MANIFEST_NAME)
    unfinished = out / (PACKED_NAME + UNFINISHED)
    unfinished.write_text(json.dumps({**_claim_text(job), "digests": digests}))
    os.replace(unfinished, out / PACKED_NAME)
    if progress:
        progress(steps, steps)
    return sum(file.stat().st_size for file in out.glob("packed-*.safetensors"))


def _claim_text(job: PackJob) -> dict[str, object]:
    return {
        "layout": LAYOUT_VERSION,
        "format": job.format,
        "linear_format": job.linear_format,
        "checkpoint_id": job.manifest.checkpoint_id,
    }


def _claim(job: PackJob, out: Path) -> None:
    """Mark `out` as being written for this job. Raises ValueError if it is used otherwise."""
    if out.resolve() == job.source.folder.resolve():
        raise ValueError(f"{out}: is the checkpoint itself; name another folder")
    if (out / PACKED_NAME).exists():
        raise ValueError(f"{out}: holds finished packed weights already; remove them first")
    if not job.has_attention and not any(map(job.experts, range(job.config.num_layers))):
        raise ValueError(
            f"{job.source.folder}: holds neither a whole expert nor the attention side"
        )
    out.mkdir(parents=True, exist_ok=True)
    claim = out / (PACKED_NAME + UNFINISHED)
    if claim.exists():
        begun = read_json(claim, limit_bytes=1 << 20)
        formats = {key: this_name(str(begun.get(key))) for key in ("format", "linear_format")}
        if {**begun, **formats} != _claim_text(job):
            raise ValueError(f"{out}: begun for other weights or formats; remove it first")
    elif any(out.iterdir()):
        raise ValueError(f"{out}: is not empty; name a new folder")
    written = sum(file.stat().st_size for file in out.glob("packed-*.safetensors"))
    needed, free = job.size_bytes() - written, shutil.disk_usage(out).free
    if needed > free:
        raise ValueError(f"{out}: needs {needed} bytes more, but the disk has {free} free")
    claim.write_text(json.dumps(_claim_text(job)))


Entries = dict[str, tuple[str, tuple[int, ...], int]]
"""Tensor -> its dtype, shape and bytes, as `write_shard` takes them."""


def _panel_entry(panels: Panels) -> tuple[str, tuple[int, ...], int]:
    return "U8", (panels.size_bytes,), panels.size_bytes


def _layer_entries(job: PackJob, layer_idx: int) -> Entries:
    return {
        panels.name: _panel_entry(panels)
        for expert_id in job.experts(layer_idx)
        for panels in packed.expert_panels(job.config, job.format, expert_id)
    }


def _layer_bytes(job: PackJob, layer_idx: int) -> Iterator[memoryview]:
    for expert_id in job.experts(layer_idx):
        verify_piece(job.source, job.manifest, layer_idx, expert_id)
        expert = job.source.stored_expert(layer_idx, expert_id)
        for matrix in pack_expert(expert, job.format):
            yield _bytes(matrix)
        job.source.release(job.source.names.expert(layer_idx, expert_id).values())


def _attention_entries(job: PackJob) -> Entries:
    config = job.config
    entries: Entries = {}
    for layer_idx in range(config.num_layers):
        for panels in packed.layer_panels(config, job.linear_format, layer_idx).values():
            entries[panels.name] = _panel_entry(panels)
    head = packed.head_panels(config, job.linear_format)
    entries[head.name] = _panel_entry(head)
    for spec in packed.plain_specs(config):
        shard = job.source.shard_of(spec.name)
        assert shard is not None, "the source holds all of the attention side"
        entry = shard.entries[spec.name]
        entries[spec.name] = (entry.dtype, entry.shape, entry.end - entry.start)
    return entries


def _attention_bytes(job: PackJob) -> Iterator[memoryview]:
    """In the order of `_attention_entries`."""
    source, config = job.source, job.config
    for layer_idx in range(config.num_layers):
        specs = source.names.layer(layer_idx)
        parts = {"qkv": ("q", "k", "v"), "o": ("o",), "routing": ("routing",)}
        for key, names in parts.items():
            format = "f32" if key == "routing" else job.linear_format
            yield _bytes(pack_linear([source.stored(specs[name]) for name in names], format))
    head = source.names.outer()["lm_head"]
    yield _bytes(pack_linear([source.stored(head)], job.linear_format))
    for spec in packed.plain_specs(config):
        source.stored(spec)  # checks that its numbers are finite
        shard = source.shard_of(spec.name)
        assert shard is not None, "the source holds all of the attention side"
        yield shard.raw(spec.name)


def _bytes(matrix: PackedMatrix) -> memoryview:
    assert matrix.data.dtype == torch.uint8
    return matrix.data.numpy().data
