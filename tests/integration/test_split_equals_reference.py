"""Tokens through real processes equal the reference's.

One mesh is in the fast suite, and the only processes there that serve: all else of
tests/integration is slow.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from moe_model.reference import ReferenceModel
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from protos import attention_pb2
from tests.support.generate_call import generate
from tests.support.mesh import Mesh

STRIPES = {
    "layer_striped": (("--layers", "0,2"), ("--layers", "1")),
    "expert_striped": (("--experts", "0-2,7"), ("--experts", "3-6")),
    "router_decides": ((), ("--layers", "1")),
    "by_memory": (("--memory", "276480"), ("--memory", "270KiB")),  # 12 of the 24 pieces each
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    write_tiny(folder, seed=11, fp8=True, shards=2)
    return folder


EVERY_STRIPE = [
    pytest.param(name, marks=() if name == "layer_striped" else pytest.mark.slow)
    for name in STRIPES
]


@pytest.fixture(scope="module", params=EVERY_STRIPE)
def mesh(request: pytest.FixtureRequest, model: Path) -> Iterator[Mesh]:
    with Mesh(model, STRIPES[request.param]) as running:
        yield running


def test_greedy_tokens_of_concurrent_requests_equal_the_reference(mesh: Mesh, model: Path) -> None:
    reference = ReferenceModel(Checkpoint.open(model))
    prompts = [[(7 * i + 3 * j) % 300 + 3 for j in range(3 + 19 * i)] for i in range(6)]
    expected = [reference.greedy(prompt, 20, frozenset({2})) for prompt in prompts]
    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(lambda p: generate(mesh.attention.address, p, 20), prompts))
    assert [tokens for tokens, _ in results] == expected
    for (tokens, finished), prompt in zip(results, prompts, strict=True):
        stop = tokens[-1] == 2
        wanted = attention_pb2.FINISH_REASON_STOP if stop else attention_pb2.FINISH_REASON_LENGTH
        assert finished.reason == wanted
        assert finished.usage.prompt_tokens == len(prompt)
        assert finished.usage.generated_tokens == len(tokens)
        assert finished.timings.network_ms > 0
        assert finished.timings.pool_compute_ms > 0


def test_seeded_sampling_is_the_same_alone_and_in_a_crowd(mesh: Mesh) -> None:
    def run(seed: int) -> list[int]:
        return generate(
            mesh.attention.address, [5, 6, 7, 8], 6, temperature=1.0, top_k=40, seed=seed
        )[0]

    alone = [run(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as threads:
        crowd = list(threads.map(run, range(3)))
    assert crowd == alone
    assert len({tuple(tokens) for tokens in alone}) > 1
