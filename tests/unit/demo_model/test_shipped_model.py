"""The bundled checkpoint: its format, its limits, and that it answers as documented."""

import json
import random
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

import demo_model
from demo_model import chat, checkpoint_format, network, scoring, self_check
from demo_model.conversation import WEIGHTS, make, sample
from demo_model.dataset import Encoder
from demo_model.draw import Draw, Split
from demo_model.generate import GREEDY, SERVED, Decoder
from moe_model.chat.template import ChatTemplate
from moe_model.families.known import load_config
from moe_model.reference import ReferenceModel
from moe_model.text.tokenizer import Tokenizer as GatewayTokenizer
from moe_model.weights.checkpoint import Checkpoint
from tests.support.places import DEMO_MODEL

MIB = 2**20


@pytest.fixture(scope="module")
def weights() -> network.Weights:
    return self_check.load_for(DEMO_MODEL, "cpu")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(DEMO_MODEL / "tokenizer.json")


def test_the_shape_is_small_and_exercises_what_m2_has() -> None:
    config = load_config(DEMO_MODEL)
    assert config.num_layers >= 4
    assert config.num_experts >= 16
    assert config.top_k >= 4
    assert config.query_size != config.hidden_size
    assert config.rotary_dim * 2 == config.head_dim
    assert config.max_position_embeddings == 32_768
    raw = json.loads((DEMO_MODEL / "config.json").read_text())
    assert raw["architectures"] == ["MiniMaxM2ForCausalLM"]
    assert raw["quantization_config"]["weight_block_size"] == [128, 128]


def test_the_files_keep_to_their_sizes() -> None:
    shards = list(DEMO_MODEL.glob("*.safetensors"))
    assert all(shard.stat().st_size <= 15 * MIB for shard in shards)
    folder = Path(demo_model.__file__).parent
    everything = [f for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    assert sum(f.stat().st_size for f in everything) <= 40_000_000


def test_parameters_and_selection_bias(weights: network.Weights) -> None:
    assert 3e6 <= sum(value.numel() for value in weights.values()) <= 36e6
    assert all(float(layer.abs().max()) > 0.01 for layer in weights["bias"])


def test_the_tokenizer_is_small_reads_digits_singly_and_marks_m2_s_tokens() -> None:
    tokenizer = Tokenizer.from_file(str(DEMO_MODEL / "tokenizer.json"))
    assert 2_000 <= tokenizer.get_vocab_size() <= 4_096
    digits = tokenizer.encode("20261123", add_special_tokens=False)
    assert digits.tokens == list("20261123")
    added = {
        token["content"]: token["special"]
        for token in json.loads((DEMO_MODEL / "tokenizer.json").read_text())["added_tokens"]
    }
    assert all(added[token] for token in chat.SPECIAL_TOKENS)
    assert not any(added[token] for token in chat.ADDED_TOKENS)
    text = "naïve 𝄞 你好 \u0000 ~ [x]"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text


def test_generation_stops_at_the_end_of_turn() -> None:
    tokenizer = Tokenizer.from_file(str(DEMO_MODEL / "tokenizer.json"))
    raw = json.loads((DEMO_MODEL / "generation_config.json").read_text())
    assert raw["eos_token_id"] == tokenizer.token_to_id(chat.END_OF_TURN)
    assert raw["bos_token_id"] == tokenizer.token_to_id(chat.ROLE)


def test_training_ids_are_the_gateway_s_ids(encoder: Encoder) -> None:
    template, tokenizer = ChatTemplate.load(DEMO_MODEL), GatewayTokenizer.load(DEMO_MODEL)
    for seed in range(60):
        draw = Draw(rng=random.Random(seed), language=("en", "zh")[seed % 2])
        made = make(draw, ("tool_answer", "follow_up", "sort")[seed % 3])
        served = tokenizer.encode_segments(template.render(made.messages[:-1], made.tools or None))
        trained = encoder.encode([(text, False) for text, _ in chat.render(made)[:-1]])[0]
        assert served == trained


def test_the_reference_model_and_the_training_network_agree(
    weights: network.Weights, encoder: Encoder
) -> None:
    shape = checkpoint_format.load_shape(DEMO_MODEL)
    prompt, _ = encoder.encode([("]~!b[]~b]system\nBe brief.[e~[\n]~b]user\n3+4?[e~[\n", False)])
    served = ReferenceModel(Checkpoint.open(DEMO_MODEL)).logits(prompt)
    tokens = torch.tensor([prompt])
    cos, sin = network.rotary_tables(torch.arange(len(prompt))[None], shape)
    mask = torch.ones(len(prompt), len(prompt), dtype=torch.bool).tril()[None, None]
    hidden = torch.nn.functional.embedding(tokens, weights["embed"])
    for layer in network.layers_of(weights, shape):
        hidden, _ = network.packed_layer(hidden, layer, cos, sin, mask, shape)
    normed = network.rms_norm(hidden, weights["norm"], shape.rms_norm_eps)
    trained = torch.nn.functional.linear(normed, weights["head"])[0]
    torch.testing.assert_close(served, trained, rtol=1e-3, atol=1e-3)


def test_held_out_text_loads_the_experts_evenly(weights: network.Weights, encoder: Encoder) -> None:
    """Of the skills that it was taught."""
    decoder = Decoder(weights, checkpoint_format.load_shape(DEMO_MODEL))
    texts = [
        chat.render(sample(random.Random(skill), Split.OPERANDS, skill, "en")) for skill in WEIGHTS
    ]
    loads = decoder.expert_load([encoder.encode(text)[0] for text in texts])
    assert float((loads.amax(1) / loads.mean(1)).max()) <= 2


def test_it_answers_held_out_questions(weights: network.Weights, encoder: Encoder) -> None:
    """A few skills, greedy; the slow test below asks more, README.md has the full table."""
    decoder = Decoder(weights, checkpoint_format.load_shape(DEMO_MODEL))
    skills = ("add", "weekday", "tool_call")
    questions = [q for q in scoring.questions(Split.OPERANDS, 1) if q.skill in skills]
    pairs = self_check.ask(decoder, encoder, questions, GREEDY, batch=10)
    right = sum(scoring.is_right(question, reply) for question, reply in pairs)
    assert right >= len(questions) - 1
    assert scoring.well_formed_calls(pairs) == [2, 2]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("split", "sampling", "least"),
    [(Split.OPERANDS, GREEDY, 0.95), (Split.PHRASINGS, GREEDY, 0.9), (Split.OPERANDS, SERVED, 0.9)],
)
def test_accuracy_on_what_was_held_out(
    weights: network.Weights,
    encoder: Encoder,
    split: Split,
    sampling: self_check.Sampling,
    least: float,
) -> None:
    decoder = Decoder(weights, checkpoint_format.load_shape(DEMO_MODEL))
    questions = scoring.questions(split, 5, seed=1)
    pairs = self_check.ask(decoder, encoder, questions, sampling, batch=34)
    right = sum(scoring.is_right(question, reply) for question, reply in pairs)
    assert right >= least * len(questions)
    good, due = scoring.well_formed_calls(pairs)
    assert good >= 0.98 * due
