"""The whole model on one device, no batching, no paging: the definition of correct.

Everything fast is compared with this file.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from moe_model.config import ModelConfig
from moe_model.maths.attention import attend
from moe_model.maths.experts import ExpertWeights, run_experts
from moe_model.maths.layer import PlainLayer, from_combine, up_to_dispatch
from moe_model.maths.linear import linear
from moe_model.maths.linears import PlainLinears
from moe_model.maths.norm import rms_norm
from moe_model.maths.rope import rope_cos_sin, rope_frequencies
from moe_model.weights.checkpoint import Checkpoint
from moe_model.weights.seeded import SeededWeights

Source = Checkpoint | SeededWeights


@dataclass
class KvSlab:
    """Keys and values of one layer, positions in order: [S, G, P] each."""

    k_SGP: Tensor
    v_SGP: Tensor


class ReferenceModel:
    """A checkpoint as one model; `logits` extends a sequence, `greedy` decodes it."""

    def __init__(
        self,
        checkpoint: Source,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        config = checkpoint.config
        self.config: ModelConfig = config
        self.device = torch.device(device)
        self.layers: list[PlainLayer] = []
        self.experts: list[ExpertWeights] = []
        for layer_idx in range(config.num_layers):
            held = checkpoint.layer(layer_idx, PlainLinears(dtype)).to(self.device)
            self.layers.append(PlainLayer(held, config))
            self.experts.append(load_experts(checkpoint, layer_idx, dtype, self.device))
        self.embedding_VD = checkpoint.outer("embedding", dtype).to(self.device)
        self.final_norm_D = checkpoint.outer("final_norm", dtype).to(self.device)
        self.lm_head_VD = checkpoint.outer("lm_head", dtype).to(self.device)
        self.frequencies = rope_frequencies(config.rotary_dim, config.rope_theta, self.device)

    @torch.inference_mode()
    def logits(self, token_ids: list[int], cache: list[KvSlab] | None = None) -> Tensor:
        """float32 logits [T, V] of every given token, after what `cache` holds; extends `cache`."""
        cache = [] if cache is None else cache
        start = cache[0].k_SGP.shape[0] if cache else 0
        positions_T = torch.arange(start, start + len(token_ids), device=self.device)
        cos_T, sin_T = rope_cos_sin(positions_T, self.frequencies)
        hidden_TD = self.embedding_VD[torch.tensor(token_ids, device=self.device)]
        for layer_idx, layer in enumerate(self.layers):

            def attend_cached(
                q: Tensor, k: Tensor, v: Tensor, layer_idx: int = layer_idx
            ) -> Tensor:
                if len(cache) <= layer_idx:
                    cache.append(KvSlab(k, v))
                else:
                    slab = cache[layer_idx]
                    slab.k_SGP = torch.cat((slab.k_SGP, k))
                    slab.v_SGP = torch.cat((slab.v_SGP, v))
                return attend(q, cache[layer_idx].k_SGP, cache[layer_idx].v_SGP, positions_T)

            residual_TD, dispatch_TD, topk_ids_TK, topk_weights_TK = up_to_dispatch(
                hidden_TD, layer, cos_T, sin_T, attend_cached
            )
            combined_TD = run_experts(
                dispatch_TD, topk_ids_TK, topk_weights_TK, self.experts[layer_idx]
            )
            hidden_TD = from_combine(residual_TD, combined_TD)
        final_TD = rms_norm(hidden_TD, self.final_norm_D, self.config.rms_norm_eps)
        return linear(final_TD, self.lm_head_VD).float()

    def greedy(self, prompt: list[int], max_tokens: int, stop: frozenset[int]) -> list[int]:
        """Greedy continuation (ties to the lower id), the stop id included."""
        cache: list[KvSlab] = []
        output: list[int] = []
        step = list(prompt)
        while len(output) < max_tokens:
            token_id = int(torch.argmax(self.logits(step, cache)[-1]))
            output.append(token_id)
            if token_id in stop:
                break
            step = [token_id]
        return output


def load_experts(
    checkpoint: Source, layer_idx: int, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> ExpertWeights:
    """Every expert of a layer, stacked by id."""
    pairs = [
        checkpoint.stored_expert(layer_idx, expert_id).to(dtype)
        for expert_id in range(checkpoint.config.num_experts)
    ]
    return ExpertWeights(
        w13_EHD=torch.stack([w13 for w13, _ in pairs]).to(device),
        w2_EDF=torch.stack([w2 for _, w2 in pairs]).to(device),
    )
