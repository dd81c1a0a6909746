"""How does the training code itself answer a batch of prompts? Plain cached decoding.

Only for evaluating while training; serving is the services' business.
"""

import math
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from demo_model.network import (
    Layer,
    Shape,
    Weights,
    layers_of,
    mixture,
    project,
    rms_norm,
    rotary_tables,
)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Greedy by default; the served defaults are (1.0, 40, 0.95)."""

    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 0.95


GREEDY = Sampling()
SERVED = Sampling(temperature=1.0)


def pick(logits_BV: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """Next token ids, [B]."""
    if sampling.temperature == 0:
        return logits_BV.argmax(-1)
    values, ids = torch.topk(logits_BV.float() / sampling.temperature, sampling.top_k)
    probabilities = values.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    probabilities = probabilities.masked_fill(before >= sampling.top_p, 0)
    return ids.gather(1, torch.multinomial(probabilities, 1, generator=generator))[:, 0]


class Decoder:
    """One model on one device, with a key/value cache per call."""

    def __init__(self, weights: Weights, shape: Shape) -> None:
        self.weights = weights
        self.shape = shape
        self.layers = layers_of(weights, shape)
        self.device = weights["embed"].device
        self.loads_LE = torch.zeros(
            shape.num_hidden_layers, shape.num_local_experts, device=self.device
        )

    @torch.no_grad()
    def complete(
        self,
        prompts: list[list[int]],
        *,
        end_id: int,
        max_new: int,
        sampling: Sampling = GREEDY,
        seed: int = 0,
        deadline: float = math.inf,
    ) -> list[list[int]]:
        """The new tokens for each prompt, up to but without `end_id`.

        `deadline`: the moment of `time.monotonic()` after which they are not gone on with.
        """
        generator = torch.Generator(self.device).manual_seed(seed)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        longest = int(lengths.max())
        tokens = torch.zeros(len(prompts), longest, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = torch.tensor(prompt)
        size = longest + max_new
        cache = self._cache(len(prompts), size)
        positions = torch.arange(longest, device=self.device).expand(len(prompts), -1)
        hidden = self._forward(tokens.to(self.device), positions, cache, None)
        rows = torch.arange(len(prompts), device=self.device)
        logits = self._logits(hidden[rows, lengths - 1])
        out: list[Tensor] = []
        done = torch.zeros(len(prompts), dtype=torch.bool, device=self.device)
        for step in range(max_new):
            token = pick(logits, sampling, generator).masked_fill(done, end_id)
            out.append(token)
            done |= token == end_id
            if step % 8 == 7 and (bool(done.all()) or time.monotonic() > deadline):
                break
            place = lengths + step
            hidden = self._forward(token[:, None], place[:, None], cache, place)
            logits = self._logits(hidden[:, 0])
        table = torch.stack(out, 1).tolist()
        return [row[: row.index(end_id)] if end_id in row else row for row in table]

    @torch.no_grad()
    def expert_load(self, documents: list[list[int]], deadline: float = math.inf) -> Tensor:
        """How often each expert is chosen while reading, [L, E].

        `deadline`: the moment of `time.monotonic()` after which no further document is read.
        """
        self.loads_LE.zero_()
        for number, ids in enumerate(documents):
            if number and time.monotonic() > deadline:
                break
            positions = torch.arange(len(ids), device=self.device)[None]
            tokens = torch.tensor([ids], device=self.device)
            self._forward(tokens, positions, self._cache(1, len(ids)), None)
        return self.loads_LE

    def _cache(self, rows: int, size: int) -> list[tuple[Tensor, Tensor]]:
        shape = self.shape
        full = (rows, shape.num_key_value_heads, size, shape.head_dim)
        dtype = self.weights["embed"].dtype

        def empty() -> Tensor:
            return torch.zeros(full, dtype=dtype, device=self.device)

        return [(empty(), empty()) for _ in self.layers]

    def _logits(self, hidden: Tensor) -> Tensor:
        normed = rms_norm(hidden, self.weights["norm"], self.shape.rms_norm_eps)
        return F.linear(normed, self.weights["head"])

    def _forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        cache: list[tuple[Tensor, Tensor]],
        place: Tensor | None,
    ) -> Tensor:
        """Prefill if `place` is None, else one token per row, written at `place`."""
        hidden = F.embedding(tokens, self.weights["embed"])
        cos, sin = rotary_tables(positions, self.shape)
        for index, layer in enumerate(self.layers):
            hidden = hidden + self._attention(hidden, layer, cos, sin, cache[index], place)
            normed = rms_norm(hidden, layer["post_norm"], self.shape.rms_norm_eps)
            mixed, load_E = mixture(normed, layer, self.shape)
            self.loads_LE[index] += load_E
            hidden = hidden + mixed
        return hidden

    def _attention(
        self,
        hidden: Tensor,
        layer: Layer,
        cos: Tensor,
        sin: Tensor,
        cache: tuple[Tensor, Tensor],
        place: Tensor | None,
    ) -> Tensor:
        normed = rms_norm(hidden, layer["input_norm"], self.shape.rms_norm_eps)
        q, k, v = project(normed, layer, cos, sin, self.shape)
        keys, values = cache
        if place is None:
            keys[:, :, : k.shape[2]] = k
            values[:, :, : v.shape[2]] = v
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            rows = torch.arange(len(place), device=place.device)
            keys[rows, :, place] = k[:, :, 0]
            values[rows, :, place] = v[:, :, 0]
            seen = torch.arange(keys.shape[2], device=place.device) <= place[:, None]
            mixed = F.scaled_dot_product_attention(
                q, keys, values, attn_mask=seen[:, None, None], enable_gqa=True
            )
        mixed = mixed.transpose(1, 2).reshape(*hidden.shape[:2], -1)
        return F.linear(mixed, layer["o"])
