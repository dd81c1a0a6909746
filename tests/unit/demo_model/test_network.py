"""The training network: the same function as serving's, cached or not, dense or sparse."""

import pytest
import torch
import torch.nn.functional as F

from demo_model import network
from demo_model.generate import SERVED, Decoder, pick
from demo_model.network import Weights
from tests.support.moe_model.trained_network import SHAPE, logits_of


@pytest.fixture
def weights() -> Weights:
    torch.manual_seed(0)
    made = network.initial(SHAPE, seed=0)
    made["head"] = torch.randn(64, 32)
    made["bias"] = 0.2 * torch.randn(2, 8)
    return made


def test_cached_decoding_gives_the_tokens_of_the_whole_forward_pass(weights: Weights) -> None:
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8, 9], [10]]
    found = Decoder(weights, SHAPE).complete(prompts, end_id=63, max_new=10)
    for prompt, tokens in zip(prompts, found, strict=True):
        ids = list(prompt)
        for token in tokens:
            assert token == int(logits_of(weights, ids)[-1].argmax())
            ids.append(token)
        assert len(tokens) == 10 or int(logits_of(weights, ids)[-1].argmax()) == 63


def test_dense_and_sparse_experts_are_the_same_function(weights: Weights) -> None:
    layer = network.layers_of(weights, SHAPE)[0]
    x = torch.randn(40, 32)
    ids, chosen = network.route(x, layer, SHAPE)
    dense = network.experts_dense(x, ids, chosen, layer)
    sparse = network.experts_sparse(x, ids, chosen, layer)
    torch.testing.assert_close(dense, sparse, rtol=1e-5, atol=1e-5)


def test_the_bias_selects_but_does_not_weigh(weights: Weights) -> None:
    layer = dict(network.layers_of(weights, SHAPE)[0])
    layer["bias"] = torch.tensor([9.0, 9.0, 0, 0, 0, 0, 0, 0])
    x = torch.randn(20, 32)
    ids, chosen = network.route(x, layer, SHAPE)
    assert set(ids.flatten().tolist()) == {0, 1}
    scores = F.linear(x, layer["gate"]).sigmoid().gather(1, ids)
    torch.testing.assert_close(chosen, scores / scores.sum(-1, keepdim=True))


def test_packed_conversations_do_not_see_each_other(weights: Weights) -> None:
    first, second = [1, 2, 3, 4], [5, 6, 7]
    tokens = torch.tensor([first + second])
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2]])
    owner = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    mask = (owner[:, None] == owner[None]) & torch.ones(7, 7, dtype=torch.bool).tril()
    cos, sin = network.rotary_tables(positions, SHAPE)
    hidden = F.embedding(tokens, weights["embed"])
    for layer in network.layers_of(weights, SHAPE):
        hidden, _ = network.packed_layer(hidden, layer, cos, sin, mask[None, None], SHAPE)
    normed = network.rms_norm(hidden, weights["norm"], SHAPE.rms_norm_eps)
    packed = F.linear(normed, weights["head"])[0]
    apart = torch.cat((logits_of(weights, first), logits_of(weights, second)))
    torch.testing.assert_close(packed, apart, rtol=1e-4, atol=1e-4)


def test_sampling_keeps_to_the_nucleus() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([[10.0, 5.0, *[0.0] * 60]]).expand(500, -1)
    assert set(pick(logits, SERVED, generator).tolist()) == {0}
    even = torch.zeros(500, 62)
    assert len(set(pick(even, SERVED, generator).tolist())) > 20


def test_the_expert_load_counts_every_choice(weights: Weights) -> None:
    loads = Decoder(weights, SHAPE).expert_load([[1, 2, 3], [4, 5]])
    assert loads.sum(1).tolist() == [10.0, 10.0]
