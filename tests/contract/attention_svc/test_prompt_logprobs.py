"""Prompt log-probabilities over Generate equal the reference's, however the prompt is computed."""

import asyncio
from typing import Any

import pytest
import torch

from protos import attention_pb2
from tests.support.attention_svc.generate_harness import (
    EOS,
    reference,
    request,
    running_service,
    stub_of,
)

PROMPT = [5, 9, 9, 31, 7, 60, 2, 44, 5, 9, 12, 33, 17, 8, 50, 61, 4, 4, 19, 20, 21]


def expected(prompt: list[int]) -> torch.Tensor:
    return torch.log_softmax(reference().logits(prompt), dim=-1)


class Scored:
    """One call's events: the prompt's scores first, then tokens, then the end."""

    def __init__(self) -> None:
        self.prompt: list[attention_pb2.TokenLogprobs] = []
        self.tokens: list[int] = []
        self.finished: attention_pb2.Finished | None = None


async def scored(stub: Any, message: attention_pb2.GenerateRequest) -> Scored:
    result = Scored()
    async for response in stub.Generate(message, timeout=20):
        assert result.finished is None
        kind = response.WhichOneof("event")
        if kind == "prompt_logprobs":
            assert not result.tokens
            assert response.prompt_logprobs.position == len(result.prompt) + 1
            result.prompt += response.prompt_logprobs.logprobs
        elif kind == "tokens":
            result.tokens += response.tokens.token_ids
        else:
            result.finished = response.finished
    return result


def check(result: Scored, prompt: list[int], top: int) -> None:
    logprobs_TV = expected(prompt)
    assert len(result.prompt) == len(prompt) - 1
    for position, one in enumerate(result.prompt, start=1):
        row_V = logprobs_TV[position - 1]
        assert one.logprob == pytest.approx(float(row_V[prompt[position]]), abs=1e-4)
        assert list(one.top_logprobs) == pytest.approx(row_V.topk(top).values.tolist(), abs=1e-4)
        told = dict(zip(one.top_token_ids, one.top_logprobs, strict=True))
        assert told.get(prompt[position], one.logprob) == one.logprob  # exactly: lm-eval compares


@pytest.mark.parametrize("max_batch_tokens", [64, 8, 1])
@pytest.mark.parametrize("max_tokens", [0, 1, 3])
async def test_they_are_the_references_in_any_chunks(max_batch_tokens: int, max_tokens: int):
    async with running_service(max_batch_tokens=max_batch_tokens) as service:
        async with stub_of(service) as stub:
            message = request(
                PROMPT, max_tokens=max_tokens, prompt_logprobs=True, logprobs=True, top_logprobs=3
            )
            result = await scored(stub, message)
            check(result, PROMPT, top=3)
            assert len(result.tokens) == max_tokens
            assert result.finished is not None
            assert result.finished.reason == attention_pb2.FINISH_REASON_LENGTH
        await service.until_idle()


async def test_a_cached_prefix_is_computed_again_and_others_are_not_kept_from_it():
    async with running_service() as service, stub_of(service) as stub:
        await scored(stub, request(PROMPT, max_tokens=2))
        message = request(PROMPT, max_tokens=1, prompt_logprobs=True)
        first = await scored(stub, message)
        check(first, PROMPT, top=0)
        assert first.finished is not None
        assert first.finished.usage.cached_tokens == 0
        crowd = [
            request(PROMPT[: 9 + i], max_tokens=4, prompt_logprobs=bool(i % 2), logprobs=True)
            for i in range(8)
        ]
        for i, result in enumerate(await asyncio.gather(*(scored(stub, m) for m in crowd))):
            if i % 2:
                check(result, PROMPT[: 9 + i], top=0)
            else:
                assert result.prompt == []


async def test_preemption_repeats_and_skips_nothing():
    """Many growing answers in a cache that is too small for all of them."""
    async with running_service(max_batch_tokens=16, max_waiting=32) as service:
        async with stub_of(service) as stub:
            prompts = [[3 + i, *PROMPT[: 5 + i]] for i in range(8)]
            messages = [request(p, max_tokens=60, prompt_logprobs=True) for p in prompts]
            results = await asyncio.gather(*(scored(stub, m) for m in messages))
            assert service.engine.scheduler.num_preemptions > 0
            for prompt, result in zip(prompts, results, strict=True):
                check(result, prompt, top=0)
                assert len(result.tokens) == 60


async def test_a_resumed_sequence_does_not_repeat_them():
    async with running_service() as service, stub_of(service) as stub:
        message = request(PROMPT, [7, 8], max_tokens=4, prompt_logprobs=True)
        result = await scored(stub, message)
        assert result.prompt == []
        assert len(result.tokens) == 2


async def test_a_prompt_of_one_token_has_none():
    async with running_service() as service, stub_of(service) as stub:
        result = await scored(stub, request([EOS], max_tokens=0, prompt_logprobs=True))
        assert (result.prompt, result.tokens) == ([], [])
