"""What does training compute? M2's forward pass over packed rows, as plain functions.

Weights of all layers are stacked in one tensor per kind (leading L), which keeps the
optimiser to a handful of tensors. Shape letters: moe_model/shapes.py, with R rows of T
tokens here and 2F for the gate (w1) and up (w3) branches together. The experts' exact
rounding at serving time is moe_model's business; this file only has to be the same
function.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
Layer = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a model; the names are those of config.json."""

    vocab_size: int
    hidden_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 6
    num_key_value_heads: int = 2
    head_dim: int = 64
    rotary_dim: int = 32
    intermediate_size: int = 128
    num_local_experts: int = 32
    num_experts_per_tok: int = 4
    rms_norm_eps: float = 1e-6
    rope_theta: float = 5_000_000.0
    max_position_embeddings: int = 32_768

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


SIZES: dict[str, dict[str, int]] = {
    "shipped": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 8},
    "shallow": {"hidden_size": 384, "num_attention_heads": 8},
    "narrow": {},
    "small": {
        "hidden_size": 128,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "intermediate_size": 64,
    },
}
"""33 M, 23 M and 15 M parameters, and 4 M for training on a CPU; other fields: Shape's defaults."""

LAYER_KINDS = (
    "input_norm", "post_norm", "q", "k", "v", "o", "q_norm", "k_norm", "gate", "bias", "w13", "w2",
)  # fmt: skip
MATRICES = ("q", "k", "v", "o", "w13", "w2")
"""Stored in FP8 blocks in the checkpoint."""


def shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Every trained tensor. w13 is [L, 2, E, F, D]; w2 is stored transposed, [L, E, F, D]."""
    layers, hidden = shape.num_hidden_layers, shape.hidden_size
    q_width = shape.num_attention_heads * shape.head_dim
    kv_width = shape.num_key_value_heads * shape.head_dim
    experts, width = shape.num_local_experts, shape.intermediate_size
    return {
        "embed": (shape.vocab_size, hidden),
        "head": (shape.vocab_size, hidden),
        "norm": (hidden,),
        "input_norm": (layers, hidden),
        "post_norm": (layers, hidden),
        "q": (layers, q_width, hidden),
        "k": (layers, kv_width, hidden),
        "v": (layers, kv_width, hidden),
        "o": (layers, hidden, q_width),
        "q_norm": (layers, q_width),
        "k_norm": (layers, kv_width),
        "gate": (layers, experts, hidden),
        "bias": (layers, experts),
        "w13": (layers, 2, experts, width, hidden),
        "w2": (layers, experts, width, hidden),
    }


def initial(shape: Shape, seed: int) -> Weights:
    """Float32 starting weights."""
    generator = torch.Generator().manual_seed(seed)
    weights: Weights = {}
    for name, size in shapes(shape).items():
        if name.endswith("norm"):
            weights[name] = torch.ones(size)
        elif name in ("bias", "head"):
            weights[name] = torch.zeros(size)
        else:
            fan_in = size[-2] if name == "w2" else size[-1]
            std = 0.5 if name == "embed" else 0.5 * fan_in**-0.5
            weights[name] = torch.randn(size, generator=generator) * std
    return weights


def layers_of(weights: Weights, shape: Shape) -> list[Layer]:
    """The stacked tensors as one dictionary per layer."""
    cut = {name: weights[name].unbind(0) for name in LAYER_KINDS}
    return [
        {name: cut[name][layer] for name in LAYER_KINDS} for layer in range(shape.num_hidden_layers)
    ]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Statistics in float32; the weight multiplies after the cast back, as in Transformers."""
    wide = x.float()
    scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * scaled.to(x.dtype)


def rotary_tables(positions: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """cos and sin, positions' shape + [rotary_dim / 2], float32."""
    exponent = torch.arange(0, shape.rotary_dim, 2, device=positions.device, dtype=torch.float32)
    frequency = shape.rope_theta ** (-exponent / shape.rotary_dim)
    angles = positions[..., None].float() * frequency
    return angles.cos(), angles.sin()


def rotate(x_RHTP: Tensor, cos_RTp: Tensor, sin_RTp: Tensor) -> Tensor:
    """Half-split rotation of the first rotary_dim of each head; the rest is unchanged."""
    half = cos_RTp.shape[-1]
    cos, sin = cos_RTp[:, None], sin_RTp[:, None]
    first, second = x_RHTP[..., :half].float(), x_RHTP[..., half : 2 * half].float()
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
    return torch.cat((turned.to(x_RHTP.dtype), x_RHTP[..., 2 * half :]), -1)


def project(
    x_RTD: Tensor, layer: Layer, cos: Tensor, sin: Tensor, shape: Shape
) -> tuple[Tensor, ...]:
    """q, k, v as [R, heads, T, P], with flattened QK-norm and RoPE applied."""
    rows, tokens, _ = x_RTD.shape

    def heads(x: Tensor) -> Tensor:
        return x.view(rows, tokens, -1, shape.head_dim).transpose(1, 2)

    q = rms_norm(F.linear(x_RTD, layer["q"]), layer["q_norm"], shape.rms_norm_eps)
    k = rms_norm(F.linear(x_RTD, layer["k"]), layer["k_norm"], shape.rms_norm_eps)
    v = F.linear(x_RTD, layer["v"])
    return rotate(heads(q), cos, sin), rotate(heads(k), cos, sin), heads(v)


def route(x_TD: Tensor, layer: Layer, shape: Shape) -> tuple[Tensor, Tensor]:
    """(topk_ids_TK, topk_weights_TK): selected with the bias, weighted without it, float32."""
    scores = F.linear(x_TD.float(), layer["gate"]).sigmoid()
    ids = torch.topk(scores.detach() + layer["bias"], shape.num_experts_per_tok, dim=-1).indices
    chosen = scores.gather(-1, ids)
    return ids, chosen / chosen.sum(-1, keepdim=True)


def experts_dense(x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor, layer: Layer) -> Tensor:
    """Every expert on every token, unchosen ones weighted zero: large plain GEMMs for a GPU."""
    _, experts, width, hidden = layer["w13"].shape
    weights_TE = torch.zeros(len(x_TD), experts, device=x_TD.device).scatter(1, ids_TK, weights_TK)
    both = F.linear(x_TD, layer["w13"].view(-1, hidden)).view(len(x_TD), 2, experts, width)
    inner = F.silu(both[:, 0].float()) * both[:, 1].float() * weights_TE[..., None]
    return inner.to(x_TD.dtype).view(len(x_TD), -1) @ layer["w2"].reshape(-1, hidden)


def experts_sparse(x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor, layer: Layer) -> Tensor:
    """Only the chosen experts, one after the other: fewer operations, for a CPU."""
    w1, w3 = (branch.unbind(0) for branch in layer["w13"].unbind(0))
    tokens, parts = [], []
    for expert, w2 in enumerate(layer["w2"].unbind(0)):
        token, slot = (ids_TK == expert).nonzero(as_tuple=True)
        x = x_TD[token]
        inner = F.silu(F.linear(x, w1[expert])) * F.linear(x, w3[expert])
        tokens.append(token)
        parts.append((inner @ w2).float() * weights_TK[token, slot, None])
    out = torch.zeros_like(x_TD, dtype=torch.float32)
    return out.index_add(0, torch.cat(tokens), torch.cat(parts)).to(x_TD.dtype)


class _Permuted(torch.autograd.Function):
    """Rows in another order. The gradient goes the way back, without adding anything up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return x[order]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (inverse,) = ctx.saved_tensors
        return gradients[0][inverse], None, None


def experts_grouped(x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor, layer: Layer) -> Tensor:
    """Only the chosen experts, all in one grouped GEMM over rows sorted by expert."""
    tokens, k = ids_TK.shape
    _, experts, width, hidden = layer["w13"].shape
    flat_ids = ids_TK.flatten().int()
    order = flat_ids.argsort()
    places = torch.arange(tokens * k, device=order.device)
    inverse = torch.empty_like(order).scatter_(0, order, places)
    every = torch.arange(experts, device=order.device)
    ends_E = (flat_ids[:, None] == every).sum(0).cumsum(0).int()
    rows = x_TD[:, None].expand(-1, k, -1).reshape(-1, hidden)
    both = F.grouped_mm(
        _Permuted.apply(rows, order, inverse),
        layer["w13"].transpose(0, 1).reshape(experts, 2 * width, hidden).mT,
        offs=ends_E,
    )
    inner = (F.silu(both[:, :width].float()) * both[:, width:].float()).to(x_TD.dtype)
    out = F.grouped_mm(inner, layer["w2"], offs=ends_E)
    back = _Permuted.apply(out, inverse, order).view(tokens, k, hidden)
    return (back.float() * weights_TK[..., None]).sum(1).to(x_TD.dtype)


EXPERTS = {"dense": experts_dense, "sparse": experts_sparse, "grouped": experts_grouped}
"""Three ways to compute the same."""


def mixture(
    x_RTD: Tensor, layer: Layer, shape: Shape, experts_by: str = ""
) -> tuple[Tensor, Tensor]:
    """The MoE block, and how many tokens chose each expert, float32 [E].

    `experts_by`: a key of EXPERTS; by default what suits the device and needs no new kernel.
    """
    flat = x_RTD.reshape(-1, x_RTD.shape[-1])
    ids, weights = route(flat, layer, shape)
    experts = EXPERTS[experts_by or ("dense" if flat.is_cuda else "sparse")]
    every = torch.arange(shape.num_local_experts, device=flat.device)
    load_E = (ids[..., None] == every).sum((0, 1), dtype=torch.float32)
    return experts(flat, ids, weights, layer).view(x_RTD.shape), load_E


def packed_layer(
    x_RTD: Tensor,
    layer: Layer,
    cos: Tensor,
    sin: Tensor,
    mask: Any,
    shape: Shape,
    experts_by: str = "",
) -> tuple[Tensor, Tensor]:
    """One layer over packed rows; `mask` is a flex BlockMask on CUDA, a bool [R,1,T,T] on CPU."""
    q, k, v = project(
        rms_norm(x_RTD, layer["input_norm"], shape.rms_norm_eps), layer, cos, sin, shape
    )
    if q.is_cuda:
        from torch.nn.attention.flex_attention import flex_attention

        mixed = flex_attention(q, k, v, block_mask=mask, enable_gqa=True)
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    mixed = mixed.transpose(1, 2).reshape(*x_RTD.shape[:2], -1)
    x_RTD = x_RTD + F.linear(mixed, layer["o"])
    normed = rms_norm(x_RTD, layer["post_norm"], shape.rms_norm_eps)
    out, load_E = mixture(normed, layer, shape, experts_by)
    return x_RTD + out, load_E


def loss_sum(x_RTD: Tensor, norm: Tensor, head: Tensor, labels_RT: Tensor, eps: float) -> Tensor:
    """Cross entropy summed over labelled positions; -100 marks the others."""
    if not x_RTD.is_cuda:  # on a GPU fixed shapes matter more than the work saved
        labelled = labels_RT != -100
        x_RTD, labels_RT = x_RTD[None, labelled], labels_RT[None, labelled]
    logits = F.linear(rms_norm(x_RTD, norm, eps), head)
    return F.cross_entropy(
        logits.flatten(0, 1).float(), labels_RT.flatten(), ignore_index=-100, reduction="sum"
    )
