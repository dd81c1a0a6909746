"""The demo model on a CUDA device gives the CPU's greedy tokens, in float32."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import demo_model
from minimax_m2.chat.template import ChatTemplate
from minimax_m2.chat.tokenizer import Tokenizer
from minimax_m2.checkpoint import Checkpoint
from minimax_m2.reference import ReferenceModel

MODEL = Path(demo_model.__file__).parent / "model"
QUESTIONS = ("What is 4783 + 2959?", "How many r's are in strawberry?", "你好", "Who are you?")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def prompts() -> list[list[int]]:
    tokenizer, template = Tokenizer.load(MODEL), ChatTemplate.load(MODEL)
    conversations = [[{"role": "user", "content": question}] for question in QUESTIONS]
    return [tokenizer.encode_segments(template.render(c, None)) for c in conversations]


@pytest.mark.gpu
@needs_cuda
def test_reference_on_cuda_gives_the_cpu_tokens() -> None:
    checkpoint = Checkpoint.open(MODEL)
    stop = frozenset(checkpoint.config.eos_token_ids)
    on_cpu, on_cuda = ReferenceModel(checkpoint), ReferenceModel(checkpoint, device="cuda")
    for prompt in prompts():
        assert on_cuda.greedy(prompt, 120, stop) == on_cpu.greedy(prompt, 120, stop)


@pytest.mark.gpu
@needs_cuda
def test_engine_on_cuda_gives_the_cpu_tokens() -> None:
    checkpoint = Checkpoint.open(MODEL)
    stop = frozenset(checkpoint.config.eos_token_ids)
    reference = ReferenceModel(checkpoint)
    expected = [reference.greedy(prompt, 120, stop) for prompt in prompts()]
    assert asyncio.run(_engine_tokens(checkpoint, torch.device("cuda"), stop)) == expected


def test_engine_in_process_gives_the_reference_tokens_of_the_demo_model() -> None:
    checkpoint = Checkpoint.open(MODEL)
    stop = frozenset(checkpoint.config.eos_token_ids)
    reference = ReferenceModel(checkpoint)
    expected = [reference.greedy(prompt, 120, stop) for prompt in prompts()]
    assert asyncio.run(_engine_tokens(checkpoint, torch.device("cpu"), stop)) == expected


async def _engine_tokens(
    checkpoint: Checkpoint, device: torch.device, stop: frozenset[int]
) -> list[list[int]]:
    """Greedy tokens of all questions as one batch through the engine, experts in process."""
    from attention_svc.engine import Engine
    from attention_svc.in_process import InProcessTransport
    from attention_svc.kv_cache import BlockPool, KvCache
    from attention_svc.layer_stack import LayerStack
    from attention_svc.metrics import AttentionMetrics
    from attention_svc.sampling_params import SamplingParams
    from attention_svc.scheduler import Scheduler
    from attention_svc.sequence import Sequence

    config, dtype = checkpoint.config, torch.float32
    params = SamplingParams(
        temperature=0, top_p=1, top_k=0, min_p=0, repetition_penalty=1, presence_penalty=0,
        frequency_penalty=0, logit_bias=(), seed=0, max_tokens=120, min_tokens=0,
        stop_token_ids=stop, ignore_eos=True, logprobs=False, top_logprobs=0,
    )  # fmt: skip
    with ThreadPoolExecutor(1) as thread:
        cache = KvCache(config, num_blocks=256, block_size=16, dtype=dtype, device=device)
        metrics = AttentionMetrics(config.num_layers, config.num_experts)
        transport = InProcessTransport(
            checkpoint, dtype, device, compute_thread=thread, inline_rows=64
        )
        stack = LayerStack(
            checkpoint, cache, transport, metrics.activations, dtype=dtype, device=device,
            compute_thread=thread,
        )  # fmt: skip
        scheduler = Scheduler(
            BlockPool(256), block_size=16, max_batch_tokens=64, max_running=8, max_waiting=8,
            max_waiting_tokens=10_000,
        )  # fmt: skip
        engine = Engine(
            stack, scheduler, metrics, block_size=16, max_model_len=2048, expert_timeout_s=10
        )
        sequences = [
            Sequence(request_id="t", prompt_ids=prompt, output_ids=[], params=params, stop_ids=stop)
            for prompt in prompts()
        ]
        for sequence in sequences:
            engine.add(sequence)
        running = asyncio.create_task(engine.run())
        async with asyncio.timeout(100):
            while not engine.idle:
                await asyncio.sleep(0.01)
        running.cancel()
    return [sequence.output_ids for sequence in sequences]
