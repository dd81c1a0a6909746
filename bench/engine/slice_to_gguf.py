"""Writes the real-width slice as a GGUF file, so that llama.cpp can be measured too.

    .venv/bin/pip install gguf
    .venv/bin/python bench/engine/slice_to_gguf.py SLICE_FOLDER slice-bf16.gguf
    llama-quantize slice-bf16.gguf slice-q8_0.gguf Q8_0
    .venv/bin/python bench/engine/engine.py --llama-model slice-bf16.gguf
    .venv/bin/python bench/engine/engine.py --formats int8 --llama-model int8=slice-q8_0.gguf

The file has no tokenizer: `llama-batched-bench` draws random ids. Tensor names and metadata are
GGUF's for the architecture `minimax-m2`; matrices in bfloat16, norms and routing in float32.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gguf
import numpy as np
import torch
from torch import Tensor

from moe_model.config import ModelConfig
from moe_model.maths.linears import PlainLinears
from moe_model.weights.checkpoint import Checkpoint

BF16 = gguf.GGMLQuantizationType.BF16


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("slice", type=Path, help="checkpoint folder")
    parser.add_argument("out", type=Path, help="GGUF file to write")
    options = parser.parse_args()
    checkpoint = Checkpoint.open(options.slice)
    writer = gguf.GGUFWriter(options.out, "minimax-m2")
    add_metadata(writer, checkpoint.config)
    for name, values in tensors(checkpoint):
        print(name, tuple(values.shape), file=sys.stderr)
        if values.dtype == torch.bfloat16:
            writer.add_tensor(name, values.contiguous().view(torch.uint8).numpy(), raw_dtype=BF16)
        else:
            writer.add_tensor(name, values.numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file(progress=False)
    writer.close()


def add_metadata(writer: "gguf.GGUFWriter", config: ModelConfig) -> None:
    writer.add_name("real-width slice")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.expert_size)
    writer.add_expert_feed_forward_length(config.expert_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.rotary_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_expert_count(config.num_experts)
    writer.add_expert_used_count(config.top_k)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)


def tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    """(GGUF name, values): bfloat16 matrices; float32 norms, routing and bias."""
    config, bf16 = checkpoint.config, torch.bfloat16
    yield "token_embd.weight", checkpoint.outer("embedding", bf16)
    yield "output_norm.weight", checkpoint.outer("final_norm", bf16).float()
    yield "output.weight", checkpoint.outer("lm_head", bf16)
    sizes = (config.query_size, config.kv_size, config.kv_size)
    for layer_idx in range(config.num_layers):
        layer, prefix = checkpoint.layer(layer_idx, PlainLinears(bf16)), f"blk.{layer_idx}."
        for part, matrix in zip("qkv", layer.qkv_AD.split(sizes), strict=True):
            yield f"{prefix}attn_{part}.weight", matrix
        assert layer.q_norm is not None
        assert layer.k_norm is not None
        assert layer.bias_E is not None
        yield prefix + "attn_output.weight", layer.o_DA
        yield prefix + "attn_q_norm.weight", layer.q_norm.float()
        yield prefix + "attn_k_norm.weight", layer.k_norm.float()
        yield prefix + "attn_norm.weight", layer.input_norm_D.float()
        yield prefix + "ffn_norm.weight", layer.post_norm_D.float()
        yield prefix + "ffn_gate_inp.weight", layer.routing_ED.float()
        yield prefix + "exp_probs_b.bias", layer.bias_E.float()
        experts = [checkpoint.expert(layer_idx, e, bf16) for e in range(config.num_experts)]
        gates, ups = zip(*(w13_HD.chunk(2) for w13_HD, _ in experts), strict=True)
        yield prefix + "ffn_gate_exps.weight", torch.stack(gates)
        yield prefix + "ffn_up_exps.weight", torch.stack(ups)
        yield prefix + "ffn_down_exps.weight", torch.stack([w2_DF for _, w2_DF in experts])


if __name__ == "__main__":
    main()
