"""A small network as the trainer has it."""

import torch
import torch.nn.functional as F

from demo_model import network
from demo_model.network import Shape, Weights

SHAPE = Shape(
    vocab_size=64,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=3,
    num_key_value_heads=1,
    head_dim=16,
    rotary_dim=8,
    intermediate_size=24,
    num_local_experts=8,
    num_experts_per_tok=2,
)


def logits_of(weights: Weights, ids: list[int]) -> torch.Tensor:
    tokens = torch.tensor([ids])
    cos, sin = network.rotary_tables(torch.arange(len(ids))[None], SHAPE)
    mask = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()[None, None]
    hidden = F.embedding(tokens, weights["embed"])
    for layer in network.layers_of(weights, SHAPE):
        hidden, _ = network.packed_layer(hidden, layer, cos, sin, mask, SHAPE)
    normed = network.rms_norm(hidden, weights["norm"], SHAPE.rms_norm_eps)
    return F.linear(normed, weights["head"])[0]
