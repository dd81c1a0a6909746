"""What model does an M2 config.json describe, and can it be served?

What the engine cannot serve is refused, naming the key, its value and what is allowed.
`num_local_experts` is the total of a layer, `num_experts` here.
"""

from collections.abc import Mapping
from typing import Any

from moe_model.config import ModelConfig, QuantConfig
from moe_model.config_values import boolean, integer, number, table, token_ids
from moe_model.families.minimax_m2.rope_config import read_rope
from protos.limits import MAX_EXPERTS, MAX_LAYERS

_QUANT_METHODS = ("none", "fp8")


def parse_config(raw: Mapping[str, Any]) -> ModelConfig:
    """The checked config from config.json's content. Unknown keys are ignored."""
    _refuse_unservable(raw)
    num_heads = integer(raw, "num_attention_heads")
    hidden_size = integer(raw, "hidden_size")
    head_dim = integer(raw, "head_dim", hidden_size // max(num_heads, 1))
    rope = read_rope(raw, head_dim)
    num_experts = integer(raw, "num_local_experts", most=MAX_EXPERTS)
    return ModelConfig(
        model_type=raw["model_type"],
        vocab_size=integer(raw, "vocab_size"),
        hidden_size=hidden_size,
        num_layers=integer(raw, "num_hidden_layers", most=MAX_LAYERS),
        num_heads=num_heads,
        num_kv_heads=integer(raw, "num_key_value_heads", num_heads),
        head_dim=head_dim,
        rotary_dim=rope.rotary_dim,
        rope_theta=rope.theta,
        rms_norm_eps=number(raw, "rms_norm_eps", 1e-6),
        num_experts=num_experts,
        top_k=integer(raw, "num_experts_per_tok", most=num_experts),
        expert_size=integer(raw, "intermediate_size"),
        use_qk_norm=boolean(raw, "use_qk_norm", True),
        use_routing_bias=boolean(raw, "use_routing_bias", True),
        max_position_embeddings=integer(raw, "max_position_embeddings"),
        eos_token_ids=token_ids(raw, "eos_token_id"),
        dtype=str(raw.get("torch_dtype") or raw.get("dtype") or "bfloat16"),
        quant=_quant(raw),
    )


def _refuse_unservable(raw: Mapping[str, Any]) -> None:
    """Raises ValueError for what would be computed wrongly."""
    if raw.get("use_qk_norm", True) and raw.get("qk_norm_type", "per_layer") != "per_layer":
        raise ValueError(
            f"config.json: qk_norm_type {raw['qk_norm_type']!r} is not supported; only 'per_layer' "
            "(one norm over all heads of a projection)"
        )
    if raw.get("scoring_func", "sigmoid") != "sigmoid":
        raise ValueError(f"config.json: scoring_func {raw['scoring_func']!r}; only 'sigmoid'")
    if raw.get("hidden_act", "silu") != "silu":
        raise ValueError(f"config.json: hidden_act {raw['hidden_act']!r}; only 'silu'")
    for key in ("attention_bias", "tie_word_embeddings", "sliding_window"):
        if raw.get(key):
            raise ValueError(f"config.json: {key} {raw[key]!r} is not supported")
    if raw.get("shared_intermediate_size"):
        raise ValueError("config.json: shared experts (shared_intermediate_size) are not supported")
    attention_types = raw.get("attn_type_list")
    if attention_types is not None and (
        not isinstance(attention_types, list) or any(kind != 1 for kind in attention_types)
    ):
        raise ValueError("config.json: attn_type_list names a kind other than 1 (full attention)")


def _quant(raw: Mapping[str, Any]) -> QuantConfig:
    quant = table(raw, "quantization_config")
    if not quant:
        return QuantConfig()
    method = quant.get("quant_method")
    if method not in _QUANT_METHODS:
        raise ValueError(
            f"config.json: quantization_config.quant_method {method!r} is not one of "
            f"{_QUANT_METHODS}"
        )
    if method == "none":
        return QuantConfig()
    if quant.get("fmt", "float8_e4m3fn") not in ("float8_e4m3fn", "e4m3"):
        raise ValueError(
            f"config.json: quantization_config.fmt {quant['fmt']!r}; only float8_e4m3fn"
        )
    block = quant.get("weight_block_size")
    if (
        not isinstance(block, list)
        or len(block) != 2
        or not all(
            isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in block
        )
    ):
        raise ValueError(
            "config.json: quantization_config.weight_block_size must be two positive integers, "
            f"got {block!r}"
        )
    return QuantConfig(method="fp8", block_rows=block[0], block_cols=block[1])
