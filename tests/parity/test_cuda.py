"""The demo model on a CUDA device gives the CPU's greedy tokens, in float32."""

import asyncio

import pytest
import torch

from attention_svc.sampling.sampler import sample
from attention_svc.sequence.params import read_params
from attention_svc.sequence.sequence import Sequence
from moe_model.chat.template import ChatTemplate
from moe_model.maths.linears import PlainLinears
from moe_model.reference import ReferenceModel
from moe_model.text.tokenizer import Tokenizer
from moe_model.weights.checkpoint import Checkpoint
from moe_model.weights.load_flag import Seeded
from moe_model.weights.seeded import SeededWeights
from protos import attention_pb2
from tests.support.attention_svc.engine_harness import GREEDY, run_to_end
from tests.support.places import DEMO_MODEL

QUESTIONS = ("What is 4783 + 2959?", "How many r's are in strawberry?", "你好", "Who are you?")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def prompts() -> list[list[int]]:
    tokenizer, template = Tokenizer.load(DEMO_MODEL), ChatTemplate.load(DEMO_MODEL)
    conversations = [[{"role": "user", "content": question}] for question in QUESTIONS]
    return [tokenizer.encode_segments(template.render(c, None)) for c in conversations]


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("piece", [(0, 0), (1, 5)])
def test_weights_from_a_seed_are_the_cpus(piece: tuple[int, int]) -> None:
    load = Seeded(seed=3, skew=1.0)
    on_cpu, on_cuda = (SeededWeights(DEMO_MODEL, load, device) for device in ("cpu", "cuda"))
    found, expected = on_cuda.stored_expert(*piece), on_cpu.stored_expert(*piece)
    for key in ("w1", "w3", "w2"):
        one, other = getattr(found, key), getattr(expected, key)
        assert torch.equal(one.values.view(torch.uint8).cpu(), other.values.view(torch.uint8))
        assert torch.equal(one.scales.cpu(), other.scales)
    for key in ("embedding", "final_norm"):
        one, other = on_cuda.outer(key, torch.bfloat16), on_cpu.outer(key, torch.bfloat16)
        assert torch.equal(one.cpu(), other)
    layers = [one.layer(piece[0], PlainLinears(torch.float32)) for one in (on_cuda, on_cpu)]
    for one, other in zip(*(vars(layer).values() for layer in layers), strict=True):
        assert one is None or torch.equal(one.cpu(), other)


@pytest.mark.gpu
@needs_cuda
def test_reference_on_cuda_gives_the_cpu_tokens() -> None:
    checkpoint = Checkpoint.open(DEMO_MODEL)
    stop = frozenset(checkpoint.config.eos_token_ids)
    on_cpu, on_cuda = ReferenceModel(checkpoint), ReferenceModel(checkpoint, device="cuda")
    for prompt in prompts():
        assert on_cuda.greedy(prompt, 120, stop) == on_cpu.greedy(prompt, 120, stop)


@pytest.mark.gpu
@needs_cuda
def test_engine_on_cuda_gives_the_cpu_tokens() -> None:
    checkpoint = Checkpoint.open(DEMO_MODEL)
    stop = frozenset(checkpoint.config.eos_token_ids)
    reference = ReferenceModel(checkpoint)
    expected = [reference.greedy(prompt, 120, stop) for prompt in prompts()]
    assert asyncio.run(_engine_tokens(checkpoint, "cuda", stop)) == expected


def test_engine_in_process_gives_the_reference_tokens_of_the_demo_model() -> None:
    checkpoint = Checkpoint.open(DEMO_MODEL)
    stop = frozenset(checkpoint.config.eos_token_ids)
    reference = ReferenceModel(checkpoint)
    expected = [reference.greedy(prompt, 120, stop) for prompt in prompts()]
    assert asyncio.run(_engine_tokens(checkpoint, "cpu", stop)) == expected


async def _engine_tokens(
    checkpoint: Checkpoint, device: str, stop: frozenset[int]
) -> list[list[int]]:
    """Greedy tokens of all questions as one batch through the engine, experts in process."""
    sequences = [
        Sequence(request_id="t", prompt_ids=prompt, output_ids=[], params=GREEDY, stop_ids=stop)
        for prompt in prompts()
    ]
    await run_to_end(checkpoint, sequences, device=device)
    return [sequence.output_ids for sequence in sequences]


@pytest.mark.gpu
@needs_cuda
def test_sampling_on_cuda_draws_the_cpu_tokens() -> None:
    """The random numbers are hashed from integers, so both devices draw the same tokens."""
    logits = 3 * torch.randn(64, 20_000, generator=torch.Generator().manual_seed(1))
    logits[32:] = (2 * logits[32:]).round() / 2  # many equal ones
    known = {"temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0, "max_tokens": 99}
    controls: list[dict[str, float]] = [
        {},
        {"top_k": 40, "top_p": 0.95},
        {"top_p": 0.8},
        {"min_p": 0.05},
        {"temperature": 0.0},
        {"repetition_penalty": 1.3},
        {"frequency_penalty": 0.5, "presence_penalty": 0.5},
    ]
    many = [
        Sequence(
            request_id="test",
            prompt_ids=[1, 2, 3],
            output_ids=[4, 5] * (i % 5),
            params=read_params(
                attention_pb2.SamplingParams(**{**known, **controls[i % 7], "seed": i}), 20_000
            ),
            stop_ids=frozenset({7}),
            choice_idx=i % 3,
        )
        for i in range(64)
    ]
    on_cpu, on_cuda = sample(logits.clone(), many), sample(logits.cuda(), many)
    assert on_cuda == on_cpu
