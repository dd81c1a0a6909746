"""Real processes: a skewed load makes replicas of hot experts appear, under requests."""

import json
import time
import urllib.request
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from expertmesh.cli import app
from minimax_m2.checkpoint import Checkpoint
from minimax_m2.reference import ReferenceModel
from minimax_m2.tiny import write_tiny
from tests.integration.mesh import Mesh
from tests.integration.test_live_changes import (
    TOKENS,
    Map,
    Traffic,
    copies,
    gaps,
    held,
    holding,
)
from tests.integration.test_pool_failure import PROMPT

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
    assert traffic.wrong == []
    mesh.router.wait_for("following the load: imbalance")
    loaded = 'expertmesh_router_load_moves_total{kind="loaded"} '
    assert float(metrics.partition(loaded)[2].partition("\n")[0]) >= 3
    assert report["imbalance_before"] < 1.5
