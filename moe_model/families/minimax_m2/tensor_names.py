"""Which tensors does an M2 checkpoint hold, under which names, of which shape and dtype?

Source: names of MiniMax-M2's published checkpoints (vLLM's and SGLang's loaders
agree): `model.layers.N.self_attn.*`, `model.layers.N.block_sparse_moe.*`.
"""

from moe_model.families.family import Specs, TensorNames, TensorSpec


class MiniMaxM2Names(TensorNames):
    """Data; nothing here reads a file."""

    def outer(self) -> Specs:
        v, d = self.config.vocab_size, self.config.hidden_size
        return {
            "embedding": _spec("model.embed_tokens.weight", v, d),
            "final_norm": _spec("model.norm.weight", d),
            "lm_head": _spec("lm_head.weight", v, d),
        }

    def layer(self, layer_idx: int) -> Specs:
        config, prefix = self.config, f"model.layers.{layer_idx}."
        d, q, kv = config.hidden_size, config.query_size, config.kv_size
        specs = {
            "input_norm": _spec(prefix + "input_layernorm.weight", d),
            "q": _spec(prefix + "self_attn.q_proj.weight", q, d, quantised=True),
            "k": _spec(prefix + "self_attn.k_proj.weight", kv, d, quantised=True),
            "v": _spec(prefix + "self_attn.v_proj.weight", kv, d, quantised=True),
            "o": _spec(prefix + "self_attn.o_proj.weight", d, q, quantised=True),
            "post_norm": _spec(prefix + "post_attention_layernorm.weight", d),
            "routing": _spec(prefix + "block_sparse_moe.gate.weight", config.num_experts, d),
        }
        if config.use_qk_norm:
            specs["q_norm"] = _spec(prefix + "self_attn.q_norm.weight", q)
            specs["k_norm"] = _spec(prefix + "self_attn.k_norm.weight", kv)
        if config.use_routing_bias:
            name = prefix + "block_sparse_moe.e_score_correction_bias"
            specs["bias"] = _spec(name, config.num_experts)
        return specs

    def expert(self, layer_idx: int, expert_id: int) -> Specs:
        prefix = f"model.layers.{layer_idx}.block_sparse_moe.experts.{expert_id}."
        d, f = self.config.hidden_size, self.config.expert_size
        shapes = {"w1": (f, d), "w3": (f, d), "w2": (d, f)}
        return {
            key: _spec(f"{prefix}{key}.weight", *shape, quantised=True)
            for key, shape in shapes.items()
        }

    def is_ignored(self, name: str) -> bool:
        """MTP layers beyond the last one, stored KV scales and rotary tables: engines skip them."""
        parts = name.split(".")
        is_layer = parts[:2] == ["model", "layers"] and len(parts) > 2 and parts[2].isdecimal()
        if is_layer and int(parts[2]) >= self.config.num_layers:
            return True
        return name.endswith((".k_scale", ".v_scale", "rotary_emb.inv_freq"))


def _spec(name: str, *shape: int, quantised: bool = False) -> TensorSpec:
    return TensorSpec(name=name, shape=shape, scale_name=name + "_scale_inv", quantised=quantised)
