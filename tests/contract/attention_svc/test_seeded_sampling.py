"""A seeded request repeats its tokens: alone, in a crowd, preempted, resumed elsewhere."""

import asyncio
from typing import Any

import pytest

from protos import attention_pb2
from tests.support.attention_svc.generate_harness import heard, request, running_service, stub_of

pytestmark = pytest.mark.slow

PROMPTS = ([5, 6, 7], [9, 9, 31, 7, 60], [44] * 12, [3, 1, 4, 1, 5, 9, 2, 6])
CONTROLS: tuple[dict[str, Any], ...] = (
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 12, "top_p": 0.9},
    {"temperature": 1.5, "min_p": 0.02, "logprobs": True, "top_logprobs": 2},
    {"temperature": 1.0, "repetition_penalty": 1.3, "presence_penalty": 0.5},
    {"temperature": 1.0, "frequency_penalty": 0.9, "top_p": 0.8},
    {
        "temperature": 1.0,
        "logit_bias": [attention_pb2.LogitBias(token_id=i, bias=3) for i in (4, 8)],
    },
    {"repetition_penalty": 1.2},
    {"temperature": 1.0, "stop_token_ids": [11, 12, 13], "min_tokens": 25},
    {
        "temperature": 1.0,
        "allowed_token_ids": range(4, 12),
        "banned_sequences": [
            attention_pb2.TokenSequence(token_ids=ids) for ids in ([5, 6], [7, 7, 8], [9])
        ],
    },
)
MAX_TOKENS = 48


def message(number: int, emitted: list[int] | None = None) -> attention_pb2.GenerateRequest:
    return request(
        PROMPTS[number % len(PROMPTS)],
        emitted,
        max_tokens=MAX_TOKENS,
        seed=1000 + number,
        choice_idx=number % 3,
        **CONTROLS[number % len(CONTROLS)],
    )


async def test_alone_in_a_crowd_preempted_and_resumed():
    numbers = range(len(CONTROLS))
    async with running_service() as service, stub_of(service) as stub:
        alone = [(await heard(stub, message(number))).tokens for number in numbers]
        assert len({tuple(tokens) for tokens in alone}) == len(CONTROLS)
        resumed = [await heard(stub, message(n, alone[n][: 7 + n])) for n in numbers]
        assert [one.tokens for one in resumed] == [alone[n][7 + n :] for n in numbers]
    async with running_service(max_batch_tokens=16, max_waiting=64) as service:
        async with stub_of(service) as stub:
            # 9 sequences of up to 60 tokens in a cache of 256: some are preempted and resumed.
            crowd = await asyncio.gather(*(heard(stub, message(number)) for number in numbers))
            assert [one.tokens for one in crowd] == alone
            assert service.engine.scheduler.num_preemptions > 0
            halves = (heard(stub, message(n, alone[n][:12])) for n in reversed(numbers))
            together = await asyncio.gather(*halves)
            assert [one.tokens for one in together] == [alone[n][12:] for n in reversed(numbers)]
