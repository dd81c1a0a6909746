"""Which tensors does an M2 checkpoint hold, under which names, of which shape and dtype?

The table is data; nothing here reads a file. No torch.

Source: names of MiniMax-M2's published checkpoints (vLLM's and SGLang's loaders
agree): `model.layers.N.self_attn.*`, `model.layers.N.block_sparse_moe.*`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from moe_model.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """A tensor the checkpoint must hold. `quantised`: FP8 with a scale when the config says so."""

    name: str
    shape: tuple[int, ...]
    quantised: bool = False

    @property
    def scale_name(self) -> str:
        return self.name + "_scale_inv"


def layer_prefix(layer_idx: int) -> str:
    return f"model.layers.{layer_idx}."


def expert_specs(config: ModelConfig, layer_idx: int, expert_id: int) -> dict[str, TensorSpec]:
    """The three matrices of one piece, by our names w1 (gate), w3 (up), w2 (down)."""
    prefix = f"{layer_prefix(layer_idx)}block_sparse_moe.experts.{expert_id}."
    d, f = config.hidden_size, config.expert_size
    return {
        "w1": TensorSpec(name=prefix + "w1.weight", shape=(f, d), quantised=True),
        "w3": TensorSpec(name=prefix + "w3.weight", shape=(f, d), quantised=True),
        "w2": TensorSpec(name=prefix + "w2.weight", shape=(d, f), quantised=True),
    }


def layer_specs(config: ModelConfig, layer_idx: int) -> dict[str, TensorSpec]:
    """Everything of a layer but its experts."""
    prefix = layer_prefix(layer_idx)
    d, q, kv = config.hidden_size, config.query_size, config.kv_size
    specs = {
        "input_norm": TensorSpec(name=prefix + "input_layernorm.weight", shape=(d,)),
        "q": TensorSpec(name=prefix + "self_attn.q_proj.weight", shape=(q, d), quantised=True),
        "k": TensorSpec(name=prefix + "self_attn.k_proj.weight", shape=(kv, d), quantised=True),
        "v": TensorSpec(name=prefix + "self_attn.v_proj.weight", shape=(kv, d), quantised=True),
        "o": TensorSpec(name=prefix + "self_attn.o_proj.weight", shape=(d, q), quantised=True),
        "post_norm": TensorSpec(name=prefix + "post_attention_layernorm.weight", shape=(d,)),
        "routing": TensorSpec(
            name=prefix + "block_sparse_moe.gate.weight", shape=(config.num_experts, d)
        ),
    }
    if config.use_qk_norm:
        specs["q_norm"] = TensorSpec(name=prefix + "self_attn.q_norm.weight", shape=(q,))
        specs["k_norm"] = TensorSpec(name=prefix + "self_attn.k_norm.weight", shape=(kv,))
    if config.use_routing_bias:
        specs["bias"] = TensorSpec(
            name=prefix + "block_sparse_moe.e_score_correction_bias", shape=(config.num_experts,)
        )
    return specs


def outer_specs(config: ModelConfig) -> dict[str, TensorSpec]:
    """Embedding, final norm and LM head."""
    v, d = config.vocab_size, config.hidden_size
    return {
        "embedding": TensorSpec(name="model.embed_tokens.weight", shape=(v, d)),
        "final_norm": TensorSpec(name="model.norm.weight", shape=(d,)),
        "lm_head": TensorSpec(name="lm_head.weight", shape=(v, d)),
    }


def all_specs(config: ModelConfig) -> Iterator[TensorSpec]:
    """Every tensor of a complete checkpoint, scales not counted apart."""
    yield from outer_specs(config).values()
    for layer_idx in range(config.num_layers):
        yield from layer_specs(config, layer_idx).values()
        for expert_id in range(config.num_experts):
            yield from expert_specs(config, layer_idx, expert_id).values()


def is_ignored(name: str, config: ModelConfig) -> bool:
    """Tensors that engines skip: MTP layers beyond the last one, stored KV scales, rotary tables."""
    parts = name.split(".")
    is_layer = parts[:2] == ["model", "layers"] and len(parts) > 2 and parts[2].isdecimal()
    if is_layer and int(parts[2]) >= config.num_layers:
        return True
    return name.endswith((".k_scale", ".v_scale", "rotary_emb.inv_freq"))
