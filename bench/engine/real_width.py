"""Which model do the benches measure? The real-width slice: 4 layers of M2's sizes.

M2's layer sizes with 4 layers, 32 experts (top-8) and a vocabulary of 32,000: 2.19 B parameters,
4.4 GB in bfloat16, seeded random weights in M2's format on disk. Written once, shard by shard, so
that one layer is in memory at a time.
"""

import json
import shutil
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from moe_model.config import ModelConfig
from moe_model.families.family import TensorSpec
from moe_model.families.known import FAMILIES, load_config, parse_config, tensor_names

REAL_WIDTH: dict[str, Any] = {
    **FAMILIES["minimax_m2"].tiny_config(False),
    "vocab_size": 32_000,
    "hidden_size": 3072,
    "num_hidden_layers": 4,
    "num_attention_heads": 48,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rotary_dim": 64,
    "intermediate_size": 1536,
    "num_local_experts": 32,
    "num_experts_per_tok": 8,
    "max_position_embeddings": 65_536,
    "torch_dtype": "bfloat16",
}
DISK_RESERVE_BYTES = 4 * 1024**3


def ensure_slice(folder: Path, *, seed: int = 0, **overrides: Any) -> ModelConfig:
    """The slice in `folder`, written there if missing; `overrides` change its sizes.

    Raises ValueError when the folder holds another model or the disk is too full.
    """
    raw = {**REAL_WIDTH, **overrides}
    config = parse_config(raw)
    if (folder / "config.json").exists():
        if load_config(folder) != config:
            raise ValueError(f"{folder} holds another model; remove it or give another folder")
        return config
    needed = 2 * (config.attention_params + config.num_pieces * config.expert_params)
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < needed + DISK_RESERVE_BYTES:
        raise ValueError(
            f"{folder.parent} has {free} bytes free; the slice needs {needed} and 4 GiB"
        )
    # Written elsewhere first: an interrupted run leaves no half of a model.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=folder.name) as beside:
        _write(Path(beside), raw, config, seed)
        shutil.copytree(beside, folder, copy_function=shutil.move)
    return config


def _write(folder: Path, raw: dict[str, Any], config: ModelConfig, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight_map: dict[str, str] = {}
    for shard, specs in groupby(tensor_names(config).every(), _shard_name):
        tensors = {spec.name: _tensor(key, spec, generator) for key, spec in specs}
        save_file(tensors, folder / shard)
        weight_map.update(dict.fromkeys(tensors, shard))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(raw, indent=1))


def _shard_name(entry: tuple[str, TensorSpec]) -> str:
    parts = entry[1].name.split(".")
    part = f"layer-{parts[2]}" if parts[1] == "layers" else "outer"
    return f"model-{part}.safetensors"


def _tensor(key: str, spec: TensorSpec, generator: torch.Generator) -> Tensor:
    if key == "bias":
        return torch.randn(spec.shape, generator=generator) * 0.1
    noise = torch.randn(spec.shape, generator=generator, dtype=torch.bfloat16)
    if len(spec.shape) == 1:
        return 1 + 0.1 * noise
    if key == "embedding":
        return noise
    return noise.mul_(spec.shape[-1] ** -0.5)
