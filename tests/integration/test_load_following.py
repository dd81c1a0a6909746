"""Real processes: a skewed load makes replicas of hot experts appear, and go, under requests."""

import json
import random
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from expertmesh.cli import app
from moe_model.reference import ReferenceModel
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from protos import router_pb2
from tests.support.attention_svc.long_requests import PROMPT
from tests.support.chaos.history import Ask
from tests.support.chaos.streams import Load, Oracle, until
from tests.support.chaos.traffic import (
    TOKENS,
    Map,
    Traffic,
    copies,
    gaps,
    held,
    holding,
)
from tests.support.mesh import Mesh

pytestmark = pytest.mark.slow
FOLLOWING = ("--imbalance-s", "1", "--half-life-s", "20", "--pieces-per-minute", "600")


@pytest.fixture(scope="module")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose routing gives every token to expert 0 of each layer, and to one other."""
    folder = tmp_path_factory.mktemp("following") / "model"
    write_tiny(folder, seed=24)
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        for name, tensor in tensors.items():
            if name.endswith("e_score_correction_bias"):
                tensor[0] += 10
        save_file(tensors, file)
    return folder


def test_hot_experts_get_replicas_by_themselves_under_requests(skewed: Path):
    expected = ReferenceModel(Checkpoint.open(skewed)).greedy(PROMPT, TOKENS, frozenset())
    flags = ("--replicas", "1", "--striping", "expert", *FOLLOWING)
    with (
        Mesh(skewed, ((), (), ()), router_flags=flags) as mesh,
        Map(mesh.router.address) as seen,
        Traffic(mesh, expected) as traffic,
    ):
        seen.until(holding(3))

        def hot_twice(topology) -> bool:
            holders = [held(entry, topology) for entry in topology.pools]
            return all(sum((layer, 0) in one for one in holders) > 1 for layer in range(3))

        after = seen.until(hot_twice)
        assert copies(after) > 24  # 3 layers of 8 experts
        done = traffic.finished
        deadline_s = time.monotonic() + 60
        while traffic.finished < done + 3 and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert traffic.finished >= done + 3
        assert gaps(seen.seen, 24) == []
        with urllib.request.urlopen(
            f"http://{mesh.router.ops_address}/metrics", timeout=10
        ) as page:
            metrics = page.read().decode()
        shown = CliRunner().invoke(
            app,
            ["experts", "rebalance", "--router", mesh.router.address, "--dry-run", "--json"],
        )
        assert shown.exit_code == 0, shown.output
        report = json.loads(shown.stdout)
    traffic.assert_right()
    mesh.router.wait_for("following the load: imbalance")
    loaded = 'expertmesh_router_load_moves_total{kind="loaded"} '
    assert float(metrics.partition(loaded)[2].partition("\n")[0]) >= 3
    assert report["imbalance_before"] < 1.5


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose routing is the prompt's alone: no expert is preferred for all tokens."""
    folder = tmp_path_factory.mktemp("cooling") / "model"
    write_tiny(folder, seed=24)
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        for name, tensor in tensors.items():
            if name.endswith("e_score_correction_bias"):
                tensor.zero_()
        save_file(tensors, file)
    return folder


def holders(topology: router_pb2.Topology) -> Counter[tuple[int, int]]:
    """(layer_idx, expert_id) -> pools that hold it."""
    held_by = [held(entry, topology) for entry in topology.pools]
    return Counter(
        {
            (layer, expert): sum((layer, expert) in one for one in held_by)
            for layer in range(topology.num_layers)
            for expert in range(topology.num_experts)
        }
    )


def test_replicas_of_experts_that_cooled_down_are_unloaded_under_requests(even: Path):
    few = [Ask(prompt=(5,) * 200, max_tokens=2)]
    draw = random.Random(7)
    many = [Ask(prompt=tuple(draw.choices(range(3, 320), k=200)), max_tokens=2) for _ in range(20)]
    oracle = Oracle(even)
    flags = ("--replicas", "1", "--striping", "expert", "--imbalance-s", "1")
    flags += ("--half-life-s", "3", "--pieces-per-minute", "600")
    every_prompt = ("--no-prefix-cache",)  # a shared prefix would be routed once only
    with (
        Mesh(even, ((), (), ()), router_flags=flags, attention_flags=every_prompt) as mesh,
        Map(mesh.router.address) as seen,
    ):
        whole = copies(seen.until(holding(3)))
        with Load(mesh.attention.address, few, 2) as skewed_load:
            # Every token chooses the same two experts of each layer.
            hot = holders(seen.until(lambda topology: copies(topology) >= whole + 3))
        replicated = {piece for piece, count in hot.items() if count > 1}
        with Load(mesh.attention.address, many, 2) as even_load:

            def cooled(topology: router_pb2.Topology) -> bool:
                now = holders(topology)
                return copies(topology) == whole and all(now[piece] == 1 for piece in replicated)

            seen.until(cooled)
            done = len(even_load.histories)
            until(lambda: len(even_load.histories) >= done + 4, 60)
        assert gaps(seen.seen, whole) == []
    assert len(replicated) >= 3
    for load in (skewed_load, even_load):
        verdict = oracle.check(load.histories)
        assert verdict.right, verdict.problems[:5]
        assert verdict.requests > 4
