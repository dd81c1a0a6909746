"""A small seeded random checkpoint in M2's on-disk format, for tests and benchmarks."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from moe_model.config import ModelConfig
from moe_model.families.known import parse_config
from moe_model.families.minimax_m2.tensor_names import TensorSpec, all_specs
from moe_model.quant import quantise

TINY: dict[str, Any] = {
    "architectures": ["MiniMaxM2ForCausalLM"],
    "model_type": "minimax_m2",
    "vocab_size": 320,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rotary_dim": 8,
    "intermediate_size": 40,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "shared_intermediate_size": 0,
    "scoring_func": "sigmoid",
    "use_routing_bias": True,
    "use_qk_norm": True,
    "qk_norm_type": "per_layer",
    "rope_theta": 5_000_000,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}
"""A model of M2's shape with odd sizes; override keys as needed."""

FP8_CONFIG = {
    "quant_method": "fp8",
    "fmt": "float8_e4m3fn",
    "activation_scheme": "dynamic",
    "weight_block_size": [128, 128],
    "modules_to_not_convert": ["gate", "e_score_correction_bias", "lm_head"],
}


def write_tiny(
    folder: Path, *, seed: int = 0, fp8: bool = False, shards: int = 1, **overrides: Any
) -> ModelConfig:
    """Write a checkpoint of `TINY` with `overrides` into `folder` (made if missing)."""
    raw = {**TINY, **overrides}
    if fp8:
        raw["quantization_config"] = FP8_CONFIG
    config = parse_config(raw)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw, indent=1))
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for spec in all_specs(config):
        tensors.update(_tensor(spec, config, generator, fp8))
    _write_shards(folder, tensors, shards)
    return config


def _tensor(
    spec: TensorSpec, config: ModelConfig, generator: torch.Generator, fp8: bool
) -> dict[str, Tensor]:
    noise = torch.randn(spec.shape, generator=generator)
    stored = torch.bfloat16 if config.quant.method == "fp8" else torch.float32
    if spec.name.endswith("e_score_correction_bias"):
        return {spec.name: noise * 0.1}
    if spec.name.endswith("gate.weight"):
        return {spec.name: noise / spec.shape[-1] ** 0.5 * 2}
    if len(spec.shape) == 1:
        return {spec.name: (1 + 0.1 * noise).to(stored)}
    if spec.name == "model.embed_tokens.weight":
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
