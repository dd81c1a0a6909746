"""With the native kernels a sequence's tokens and logits are the same bits, whatever else runs."""

import asyncio
import dataclasses

import pytest
import torch

from attention_svc.config import AttentionConfig
from attention_svc.engine.layer_stack import LayerStack
from attention_svc.running import without_server
from attention_svc.sequence.sequence import Sequence
from moe_model.backends.choice import choose_backend
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from protos import attention_pb2
from tests.support.attention_svc.engine_harness import GREEDY, run_to_end
from tests.support.moe_model.tiny_sizes import ODD

MAX_TOKENS = 24
PROMPTS = [
    [7 + 3 * i + j for j in range(length)] for i, length in enumerate((1, 5, 17, 33, 40, 2, 70))
]
pytestmark = pytest.mark.skipif(
    choose_backend(torch.bfloat16).why != "", reason="no native kernels here"
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder, seed=5, fp8=True, **ODD)
    return Checkpoint.open(folder)


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    choose_backend(torch.bfloat16).set_threads(before)


class Run:
    """Some prompts through an engine; what came out, to the bit."""

    def __init__(self, checkpoint: Checkpoint, which: list[int], **engine):
        self.logits: set[bytes] = set()
        sampled = dataclasses.replace(GREEDY, temperature=0.8, top_p=0.9, max_tokens=MAX_TOKENS)
        greedy = dataclasses.replace(GREEDY, max_tokens=MAX_TOKENS, logprobs=True, top_logprobs=5)
        sequences = [
            Sequence(
                request_id=str(index),
                prompt_ids=list(PROMPTS[index]),
                output_ids=[],
                params=dataclasses.replace(sampled, seed=index) if index % 2 else greedy,
                stop_ids=frozenset(),
            )
            for index in which
        ]
        given = {"dtype": torch.bfloat16, "weight_format": "bf16", **engine}
        self.num_preemptions = asyncio.run(
            run_to_end(checkpoint, sequences, prepare=self._listen, **given)
        )
        self.tokens = dict(zip(which, [one.output_ids for one in sequences], strict=True))

    def _listen(self, stack: LayerStack) -> None:
        head = stack._logits

        def listening(hidden_BD: torch.Tensor) -> torch.Tensor:
            logits_BV = head(hidden_BD)
            self.logits.update(row.numpy().tobytes() for row in logits_BV)
            return logits_BV

        stack._logits = listening


@pytest.fixture(scope="module")
def alone(checkpoint: Checkpoint) -> dict[int, Run]:
    """Each prompt by itself, in one chunk, on one thread."""
    choose_backend(torch.bfloat16).set_threads(1)
    return {index: Run(checkpoint, [index], max_batch_tokens=256) for index in range(len(PROMPTS))}


@pytest.mark.parametrize(
    "engine",
    [
        {},
        {"threads": 3},
        {"max_batch_tokens": 7},
        {"num_blocks": 7, "max_batch_tokens": 24},
        {"over_grpc": True},
    ],
    ids=["crowd", "threads", "chunks", "preemption", "pool"],
)
def test_a_crowd_changes_no_bit(checkpoint: Checkpoint, alone: dict[int, Run], engine: dict):
    choose_backend(torch.bfloat16).set_threads(engine.pop("threads", 2))
    crowd = Run(checkpoint, list(range(len(PROMPTS))), **engine)
    assert (crowd.num_preemptions > 0) == ("num_blocks" in engine)
    for index, run in alone.items():
        assert crowd.tokens[index] == run.tokens[index], index
        assert run.logits <= crowd.logits, index


@pytest.mark.parametrize(("dtype", "expected"), [("bf16", True), ("f32", False)])
def test_a_service_says_whether_that_holds(checkpoint: Checkpoint, dtype: str, expected: bool):
    async def status() -> bool:
        config = AttentionConfig(model=checkpoint.folder, transport="in_process", dtype=dtype)
        async with without_server(config) as running:
            request = attention_pb2.GetStatusRequest()
            return (await running.servicer.GetStatus(request, None)).batch_invariant

    assert asyncio.run(status()) is expected
