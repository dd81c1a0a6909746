"""Two pools on one card: what one of them leaves undone the other one does, to the bit."""

import time
from pathlib import Path

import pytest
import torch

from moe_model.backends.choice import choose_backend
from moe_model.tiny import write_tiny
from tests.support.attention_svc.long_requests import LATER_S, Request
from tests.support.mesh import Mesh

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]
if not torch.cuda.is_available():
    pytestmark.append(pytest.mark.skip(reason="no CUDA device"))

PROMPTS = ([5, 6, 7, 8], [9, 10, 11], list(range(40, 75)))
NUM_TOKENS = 400
ENOUGH = 20
"""Tokens of every request before a pool is killed."""


def streams(mesh: Mesh) -> list[Request]:
    return [Request(mesh.attention.address, NUM_TOKENS, prompt) for prompt in PROMPTS]


def tokens_of(requests: list[Request]) -> list[list[int]]:
    for request in requests:
        request.wait(60)
        assert request.error is None
        assert request.finished is not None
        assert not request.finished.error
    return [request.tokens for request in requests]


# Without the native kernels no bits are the same after a pool is killed: see batch invariance.
on_cpu = pytest.mark.skipif(
    choose_backend(torch.bfloat16).why != "", reason="no native kernels here"
)


@pytest.mark.parametrize(
    ("attention", "experts"),
    [pytest.param("cpu", "bf16", marks=on_cpu), ("cuda", "fp8"), ("cuda", "int4_g128")],
)
def test_a_pool_killed_in_mid_stream_changes_no_token(
    tmp_path: Path, attention: str, experts: str
) -> None:
    write_tiny(tmp_path / "model", seed=21, fp8=True)
    pool = ("--device", "cuda", "--expert-dtype", experts)
    with Mesh(
        tmp_path / "model",
        (pool, pool),
        dtype="bf16",
        attention_flags=("--device", attention),
        router_flags=("--replicas", "2"),
    ) as mesh:
        for one in mesh.pools:
            one.wait_for(r"ready: \d+ pieces")
        undisturbed = tokens_of(streams(mesh))
        assert [len(tokens) for tokens in undisturbed] == [NUM_TOKENS] * len(PROMPTS)
        requests, deadline_s = streams(mesh), time.monotonic() + LATER_S
        while min(len(request.tokens) for request in requests) < ENOUGH:
            assert time.monotonic() < deadline_s, [len(request.tokens) for request in requests]
            time.sleep(0.005)
        assert all(request.is_alive() for request in requests)
        mesh.pools[0].kill()
        assert tokens_of(requests) == undisturbed
        assert mesh.pools[1].process.poll() is None
        mesh.attention.wait_for(f"pool .* at {mesh.pools[0].address}: UNAVAILABLE", 5)
