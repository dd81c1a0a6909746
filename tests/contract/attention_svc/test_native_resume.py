"""Native bfloat16 kernels: preempted or moved streams yield the same bits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from attention_svc.config import AttentionConfig
from attention_svc.running import without_server
from moe_model.backends.choice import choose_backend
from moe_model.numerics import is_invariant
from moe_model.tiny import write_tiny
from protos import attention_pb2
from tests.support.attention_svc.generate_harness import request
from tests.support.moe_model.tiny_sizes import ODD

MAX_TOKENS = 40
PROMPTS = [
    [7 + 3 * i + j for j in range(length)] for i, length in enumerate((1, 5, 17, 33, 40, 2, 70, 16))
]
pytestmark = pytest.mark.skipif(
    choose_backend(torch.bfloat16).why != "", reason="no native kernels here"
)
Stream = list[tuple[int, bytes]]
"""Token ids, and their log-probabilities to the bit."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder, seed=5, fp8=True, **ODD)
    return folder


class Running:
    """One attention service with experts in process, called without a network."""

    def __init__(self, model: Path, **flags: Any):
        self._config = AttentionConfig(
            model=model, transport="in_process", dtype="bf16", kv_dtype="bf16", **flags
        )

    @asynccontextmanager
    async def started(self) -> AsyncIterator["Running"]:
        async with without_server(self._config) as self._running:
            assert is_invariant(self._running._model.kernel.id)
            assert self._running._model.layout.dtype == torch.bfloat16
            yield self

    @property
    def num_preemptions(self) -> int:
        return self._running.engine.scheduler.num_preemptions

    async def hear(self, index: int, emitted: Stream | None = None) -> Stream:
        """The rest of a stream. Every second one is sampled with a seed, the others are greedy."""
        drawn = {"temperature": 0.9, "top_p": 0.9, "seed": index} if index % 2 else {}
        message = request(
            PROMPTS[index],
            [token for token, _ in emitted or []],
            max_tokens=MAX_TOKENS,
            logprobs=True,
            top_logprobs=3,
            **drawn,
        )
        stream: Stream = []
        async with asyncio.timeout(60):
            async for response in self._running.servicer.Generate(message, None):
                tokens, scores = response.tokens.token_ids, response.tokens.logprobs
                stream += [
                    (token, score.SerializeToString())
                    for token, score in zip(tokens, scores, strict=True)
                ]
        reason = response.finished.reason
        assert reason == attention_pb2.FINISH_REASON_LENGTH, response
        return stream


@pytest.mark.parametrize(
    "prefix_cache",
    [
        pytest.param(True, id="prefix cache"),
        pytest.param(False, id="computed anew", marks=pytest.mark.slow),
    ],
)
async def test_preempted_and_migrated_streams_keep_every_bit(model: Path, prefix_cache: bool):
    indexes = range(len(PROMPTS))
    async with Running(model, threads=1).started() as first:
        alone = [await first.hear(index) for index in indexes]
        assert first.num_preemptions == 0
    # 2 layers of 2 heads of 32 numbers: 8 KiB a block, 14 blocks; the crowd needs 32.
    cramped = Running(
        model, threads=2, kv_memory="112KiB", max_batch_tokens=24, no_prefix_cache=not prefix_cache
    )
    async with cramped.started() as second:
        crowd = await asyncio.gather(*(second.hear(index) for index in indexes))
        assert second.num_preemptions > 0
        assert crowd == alone
        before = second.num_preemptions
        # Cut off at different places and continued here, where not all of them fit at once.
        cuts = [alone[index][: 1 + index] for index in indexes]
        rests = await asyncio.gather(*map(second.hear, indexes, cuts))
        assert second.num_preemptions > before
        assert [cut + rest for cut, rest in zip(cuts, rests, strict=True)] == alone
