"""A small seeded random checkpoint, on disk as its family has it, for tests and benchmarks."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from moe_model.config import ModelConfig
from moe_model.families.family import Family, TensorSpec
from moe_model.families.known import FAMILIES
from moe_model.quant import quantise

FIRST = next(iter(FAMILIES.values()))


def write_tiny(
    folder: Path,
    *,
    seed: int = 0,
    fp8: bool = False,
    shards: int = 1,
    family: Family = FIRST,
    **overrides: Any,
) -> ModelConfig:
    """Write the family's tiny model into `folder` (made if missing).

    `overrides` are keys of its config.json. Equal seeds and sizes: equal numbers in every family.
    """
    raw = {**family.tiny_config(fp8), **overrides}
    config = family.parse_config(raw)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw, indent=1))
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for key, spec in family.tensor_names(config).every():
        tensors.update(_tensor(key, spec, config, generator))
    _write_shards(folder, tensors, shards)
    return config


def _tensor(
    key: str, spec: TensorSpec, config: ModelConfig, generator: torch.Generator
) -> dict[str, Tensor]:
    noise = torch.randn(spec.shape, generator=generator)
    fp8 = config.quant.method == "fp8"
    stored = torch.bfloat16 if fp8 else torch.float32
    if key == "bias":
        return {spec.name: noise * 0.1}
    if key == "routing":
        return {spec.name: noise / spec.shape[-1] ** 0.5 * 2}
    if len(spec.shape) == 1:
        return {spec.name: (1 + 0.1 * noise).to(stored)}
    if key == "embedding":
        return {spec.name: noise.to(stored)}
    weight = noise / spec.shape[-1] ** 0.5
    if spec.quantised and fp8:
        codes, scales = quantise(weight)
        return {spec.name: codes, spec.scale_name: scales}
    return {spec.name: weight.to(stored)}


def _write_shards(folder: Path, tensors: dict[str, Tensor], shards: int) -> None:
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for shard_idx in range(shards):
        file_name = f"model-{shard_idx + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name].contiguous() for name in names[shard_idx::shards]}
        save_file(part, folder / file_name)
        weight_map.update(dict.fromkeys(part, file_name))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
