"""How do trained weights become an M2 checkpoint on disk, and come back?

Tensor names, dtypes and FP8 blocks as MiniMax-M2 ships them: F8_E4M3 codes with one
float32 scale per 128 x 128 block (`weight_scale_inv`, a multiplier despite its name),
BF16 norms, embeddings and head, float32 gate and selection bias.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from demo_model.network import Shape, Weights

BLOCK = 128
FP8_MAX = 448.0
MAX_SHARD_BYTES = 12 * 2**20


def to_blocks(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(codes float8_e4m3fn [..., O, I], scales float32 [..., ceil(O/128), ceil(I/128)])."""
    rows, columns = weight.shape[-2:]
    tall, wide = -(-rows // BLOCK), -(-columns // BLOCK)
    padded = torch.zeros(*weight.shape[:-2], tall * BLOCK, wide * BLOCK, device=weight.device)
    padded[..., :rows, :columns] = weight
    blocks = padded.unflatten(-2, (tall, BLOCK)).unflatten(-1, (wide, BLOCK))
    peak = blocks.abs().amax((-3, -1), keepdim=True)
    scale = torch.where(peak > 0, peak / FP8_MAX, torch.ones_like(peak))
    codes = (blocks / scale).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)
    codes = codes.flatten(-4, -3).flatten(-2, -1)[..., :rows, :columns]
    return codes.contiguous(), scale[..., 0, :, 0].contiguous()


def from_blocks(codes: Tensor, scales: Tensor) -> Tensor:
    """Float32 values of the codes."""
    rows, columns = codes.shape[-2:]
    wide = scales.repeat_interleave(BLOCK, -2).repeat_interleave(BLOCK, -1)
    return codes.float() * wide[..., :rows, :columns]


def rounded(weight: Tensor) -> Tensor:
    """The weight as it will be served: through FP8 blocks, in float32."""
    return from_blocks(*to_blocks(weight))


def config(shape: Shape, tokens: dict[str, int]) -> dict[str, Any]:
    """config.json with M2's keys."""
    return {
        "architectures": ["MiniMaxM2ForCausalLM"],
        "model_type": "minimax_m2",
        **shape.as_dict(),
        "attn_type_list": [1] * shape.num_hidden_layers,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "qk_norm_type": "per_layer",
        "use_qk_norm": True,
        "scoring_func": "sigmoid",
        "use_routing_bias": True,
        "shared_intermediate_size": 0,
        "sliding_window": None,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "use_cache": True,
        "torch_dtype": "bfloat16",
        **tokens,
        "quantization_config": {
            "quant_method": "fp8",
            "fmt": "float8_e4m3fn",
            "activation_scheme": "dynamic",
            "weight_block_size": [BLOCK, BLOCK],
            "modules_to_not_convert": ["gate", "e_score_correction_bias", "lm_head"],
        },
    }


def tensors(weights: Weights, shape: Shape) -> dict[str, Tensor]:
    """All checkpoint tensors by M2 name."""
    out: dict[str, Tensor] = {}

    def plain(name: str, value: Tensor) -> None:
        out[name] = value.to(torch.bfloat16)

    def blocks(name: str, value: Tensor) -> None:
        out[name], out[f"{name}_scale_inv"] = to_blocks(value.float())

    plain("model.embed_tokens.weight", weights["embed"])
    plain("lm_head.weight", weights["head"])
    plain("model.norm.weight", weights["norm"])
    for layer in range(shape.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        plain(f"{prefix}input_layernorm.weight", weights["input_norm"][layer])
        plain(f"{prefix}post_attention_layernorm.weight", weights["post_norm"][layer])
        for kind in "qkvo":
            blocks(f"{prefix}self_attn.{kind}_proj.weight", weights[kind][layer])
        for kind in "qk":
            plain(f"{prefix}self_attn.{kind}_norm.weight", weights[f"{kind}_norm"][layer])
        moe = f"{prefix}block_sparse_moe."
        out[f"{moe}gate.weight"] = weights["gate"][layer].float()
        out[f"{moe}e_score_correction_bias"] = weights["bias"][layer].float()
        for expert in range(shape.num_local_experts):
            name = f"{moe}experts.{expert}."
            blocks(f"{name}w1.weight", weights["w13"][layer, 0, expert])
            blocks(f"{name}w2.weight", weights["w2"][layer, expert].T)
            blocks(f"{name}w3.weight", weights["w13"][layer, 1, expert])
    return {name: value.detach().cpu().contiguous() for name, value in out.items()}


def save(weights: Weights, shape: Shape, tokens: dict[str, int], folder: Path) -> None:
    """Write config.json, generation_config.json, the shards and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("model-*.safetensors"):
        old.unlink()
    everything = tensors(weights, shape)
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, value in everything.items():
        if size + value.nbytes > MAX_SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = value
        size += value.nbytes
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        (folder / file).chmod(0o644)  # it is written for its owner alone, and installed for all
        weight_map.update(dict.fromkeys(shard, file))
    total = sum(value.nbytes for value in everything.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    _write(folder / "model.safetensors.index.json", index)
    _write(folder / "config.json", config(shape, tokens))
    _write(
        folder / "generation_config.json",
        {**tokens, "do_sample": True, "temperature": 1.0, "top_k": 40, "top_p": 0.95},
    )


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def load_shape(folder: Path) -> Shape:
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return Shape(**{name: values[name] for name in Shape.__dataclass_fields__})


def load(folder: Path) -> tuple[Weights, Shape]:
    """The checkpoint as stacked float32 weights, FP8 blocks dequantised."""
    shape = load_shape(folder)
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("model-*.safetensors")):
        found.update(load_file(file))

    def get(name: str) -> Tensor:
        value = found[name]
        scales = found.get(f"{name}_scale_inv")
        return value.float() if scales is None else from_blocks(value, scales)

    def stack(pattern: str) -> Tensor:
        return torch.stack(
            [get(f"model.layers.{i}.{pattern}") for i in range(shape.num_hidden_layers)]
        )

    experts = [f"block_sparse_moe.experts.{e}" for e in range(shape.num_local_experts)]
    weights = {
        "embed": get("model.embed_tokens.weight"),
        "head": get("lm_head.weight"),
        "norm": get("model.norm.weight"),
        "input_norm": stack("input_layernorm.weight"),
        "post_norm": stack("post_attention_layernorm.weight"),
        **{kind: stack(f"self_attn.{kind}_proj.weight") for kind in "qkvo"},
        **{f"{kind}_norm": stack(f"self_attn.{kind}_norm.weight") for kind in "qk"},
        "gate": stack("block_sparse_moe.gate.weight"),
        "bias": stack("block_sparse_moe.e_score_correction_bias"),
        "w13": torch.stack(
            [torch.stack([stack(f"{e}.{w}.weight") for e in experts], 1) for w in ("w1", "w3")], 1
        ),
        "w2": torch.stack([stack(f"{e}.w2.weight") for e in experts], 1).transpose(-1, -2),
    }
    return weights, shape
