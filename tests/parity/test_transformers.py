"""Our reference against Transformers' MiniMaxM2ForCausalLM on seeded random checkpoints."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from moe_model.families.minimax_m2.tiny_config import TINY
from moe_model.maths.linears import PlainLinears
from moe_model.reference import ReferenceModel
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from transformers import MiniMaxM2ForCausalLM

FLOAT32_TOLERANCE = 1e-4
# Transformers rounds each expert's gate, up and output to bf16 and sums in bf16; we round where
# architecture.md says. Measured: at most 0.045; logits of these models have a spread near 1.
BFLOAT16_TOLERANCE = 0.1

CONFIGS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "query_width_differs": {
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 32,
        "rotary_dim": 16,
        "hidden_size": 64,
    },
    "sixty_four_experts_top2": {"num_local_experts": 64, "num_experts_per_tok": 2, "rotary_dim": 8},
    "odd_sizes": {
        "hidden_size": 136,
        "intermediate_size": 72,
        "num_local_experts": 5,
        "num_experts_per_tok": 4,
    },
}


def oracle(
    folder: Path, config_overrides: dict[str, Any], dtype: torch.dtype
) -> "MiniMaxM2ForCausalLM":
    """Transformers' model with the checkpoint's (dequantised) weights, partial rotary asserted."""
    # Here, for it takes seconds: every worker reads this file, and one runs it.
    from transformers import MiniMaxM2Config, MiniMaxM2ForCausalLM

    raw = {**TINY, **config_overrides}
    factor = raw["rotary_dim"] / raw["head_dim"]
    keys = [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "num_local_experts",
        "num_experts_per_tok",
        "max_position_embeddings",
        "rms_norm_eps",
    ]
    config = MiniMaxM2Config(
        **{key: raw[key] for key in keys},
        rope_parameters={
            "rope_theta": float(raw["rope_theta"]),
            "rope_type": "default",
            "partial_rotary_factor": factor,
        },
    )
    model = MiniMaxM2ForCausalLM(config).eval().to(dtype)
    assert factor == 0.5
    assert model.model.rotary_emb.inv_freq.shape[0] * 2 == raw["head_dim"] // 2
    checkpoint = Checkpoint.open(folder)
    state: dict[str, torch.Tensor] = {
        "model.embed_tokens.weight": checkpoint.outer("embedding", dtype),
        "model.norm.weight": checkpoint.outer("final_norm", dtype),
        "lm_head.weight": checkpoint.outer("lm_head", dtype),
    }
    for idx in range(config.num_hidden_layers):
        layer, prefix = checkpoint.layer(idx, PlainLinears(dtype)), f"model.layers.{idx}."
        q = raw["num_attention_heads"] * raw["head_dim"]
        kv = raw["num_key_value_heads"] * raw["head_dim"]
        wq, wk, wv = layer.qkv_AD.split((q, kv, kv))
        assert layer.q_norm is not None
        assert layer.k_norm is not None
        assert layer.bias_E is not None
        experts = [checkpoint.expert(idx, e, dtype) for e in range(config.num_local_experts)]
        state |= {
            prefix + "input_layernorm.weight": layer.input_norm_D,
            prefix + "post_attention_layernorm.weight": layer.post_norm_D,
            prefix + "self_attn.q_proj.weight": wq,
            prefix + "self_attn.k_proj.weight": wk,
            prefix + "self_attn.v_proj.weight": wv,
            prefix + "self_attn.o_proj.weight": layer.o_DA,
            prefix + "self_attn.q_norm.weight": layer.q_norm,
            prefix + "self_attn.k_norm.weight": layer.k_norm,
            prefix + "mlp.gate.weight": layer.routing_ED,
            prefix + "mlp.e_score_correction_bias": layer.bias_E,
            prefix + "mlp.experts.gate_up_proj": torch.stack([w13 for w13, _ in experts]),
            prefix + "mlp.experts.down_proj": torch.stack([w2 for _, w2 in experts]),
        }
    model.load_state_dict(state, strict=True)
    # Routing is float32 in every engine that serves M2.
    for decoder_layer in model.model.layers:
        decoder_layer.mlp.gate.float()
        decoder_layer.mlp.e_score_correction_bias = (
            decoder_layer.mlp.e_score_correction_bias.float()
        )
    for idx, decoder_layer in enumerate(model.model.layers):
        layer = checkpoint.layer(idx, PlainLinears(dtype))
        decoder_layer.mlp.gate.weight.data.copy_(layer.routing_ED)
        decoder_layer.mlp.e_score_correction_bias.copy_(layer.bias_E)
    return model


@pytest.mark.parametrize("fp8", [False, True], ids=["float", "fp8"])
@pytest.mark.parametrize("name", CONFIGS)
def test_float32_logits_and_greedy_tokens_equal_transformers(
    tmp_path: Path, name: str, fp8: bool
) -> None:
    write_tiny(tmp_path, seed=len(name), fp8=fp8, **CONFIGS[name])
    model = oracle(tmp_path, CONFIGS[name], torch.float32)
    reference = ReferenceModel(Checkpoint.open(tmp_path))
    prompt = torch.randint(0, TINY["vocab_size"], (23,), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model(prompt[None]).logits[0]
        generated = model.generate(
            prompt[None], max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
        )
    ours = reference.logits(prompt.tolist())
    assert (ours - expected).abs().max() < FLOAT32_TOLERANCE
    assert reference.greedy(prompt.tolist(), 12, frozenset()) == generated[0, 23:].tolist()


@pytest.mark.parametrize("name", ["tiny", "query_width_differs"])
def test_bfloat16_logits_equal_transformers_within_tolerance(tmp_path: Path, name: str) -> None:
    write_tiny(tmp_path, seed=3, fp8=True, **CONFIGS[name])
    model = oracle(tmp_path, CONFIGS[name], torch.bfloat16)
    reference = ReferenceModel(Checkpoint.open(tmp_path), torch.bfloat16)
    prompt = torch.randint(0, TINY["vocab_size"], (17,), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = model(prompt[None]).logits[0].float()
    difference = (reference.logits(prompt.tolist()) - expected).abs()
    print(f"bf16 {name}: max {difference.max():.4f} mean {difference.mean():.4f}")
    assert difference.max() < BFLOAT16_TOLERANCE


def test_step_by_step_equals_all_at_once(tmp_path: Path) -> None:
    write_tiny(tmp_path, seed=5)
    reference = ReferenceModel(Checkpoint.open(tmp_path))
    tokens = list(range(3, 30))
    cache: list = []
    pieces = [reference.logits(tokens[:9], cache), reference.logits(tokens[9:10], cache)]
    pieces.append(reference.logits(tokens[10:], cache))
    assert torch.allclose(torch.cat(pieces), reference.logits(tokens), atol=1e-4)
