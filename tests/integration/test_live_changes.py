"""Real processes: pools come, go, drain and restart under a stream of requests."""

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from expertmesh.cli import app
from moe_model.reference import ReferenceModel
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from tests.support.attention_svc.long_requests import PROMPT, Request
from tests.support.chaos.traffic import BUSY_S, TOKENS, Map, Traffic, copies, gaps, holding
from tests.support.mesh import Mesh

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("changes") / "model"
    write_tiny(folder, seed=24, fp8=True)
    return folder


@pytest.fixture(scope="module")
def expected(model: Path) -> list[int]:
    return ReferenceModel(Checkpoint.open(model)).greedy(PROMPT, TOKENS, frozenset())


def test_scaled_from_one_to_four_to_two_under_load(model: Path, expected: list[int]):
    # Load is reported, but hot experts are not copied, since the test counts copies.
    flags = ("--replicas", "1", "--striping", "expert", "--imbalance-s", "120")
    with (
        Mesh(model, ((),), router_flags=flags) as mesh,
        Map(mesh.router.address) as seen,
        Traffic(mesh, expected) as traffic,
    ):
        whole = copies(seen.until(holding(1)))
        for _ in range(3):
            mesh.start_pool().wait_listening()
        # Each piece moves once, and its former holder gives it up.
        seen.until(lambda topology: holding(4)(topology) and copies(topology) == whole)
        done = traffic.finished
        for pool in mesh.pools[:2]:
            assert pool.stop() == 0
        seen.until(lambda topology: holding(2)(topology) and copies(topology) == whole)
        while traffic.finished < done + 3:
            time.sleep(0.05)
        assert gaps(seen.seen, whole) == []
    traffic.assert_right()
    assert traffic.finished > 5


def test_rolling_restart_with_two_replicas(model: Path, expected: list[int]):
    with (
        Mesh(model, ((), (), ()), router_flags=("--replicas", "2")) as mesh,
        Map(mesh.router.address) as seen,
        Traffic(mesh, expected) as traffic,
    ):
        first = seen.until(holding(3))
        for pool in list(mesh.pools):
            assert pool.stop() == 0
            assert not any("grace period ends" in line for line in pool.lines), pool.lines
            mesh.start_pool().wait_listening()
            seen.until(lambda t: holding(3)(t) and copies(t) == copies(first))
        assert gaps(seen.seen, copies(first) // 2) == []
    traffic.assert_right()


def test_a_pool_nobody_can_replace_serves_its_grace_period_and_names_what_goes_dark(model: Path):
    flags = ("--layers", "0", "--grace-s", "2")
    with Mesh(model, (("--layers", "1,2"), flags)) as mesh:
        pool = mesh.pools[1]
        started_s = time.monotonic()
        assert pool.stop() == 0
        assert time.monotonic() - started_s > 1.9
        pool.wait_for(r"pieces that no other pool holds: layer 0 experts 0-7$")


def test_a_router_that_restarts_moves_nothing(model: Path, expected: list[int]):
    # Long enough for both pools to come back on busy cores: planning does not wait for late ones.
    flags = ("--replicas", "1", "--adopt-ms", "5000")
    with (
        Mesh(model, ((), ()), router_flags=flags) as mesh,
        Traffic(mesh, expected) as traffic,
    ):
        with Map(mesh.router.address) as seen:
            # Each piece once: the first pool has unloaded what moved to the second.
            before = seen.until(lambda t: holding(2)(t) and copies(t) == 24)
        address = mesh.router.address
        mesh.router.kill()
        mesh.start_router("--listen", address, "--ops-listen", "127.0.0.1:0")
        with Map(mesh.router.address) as seen:
            after = seen.until(holding(2))
            time.sleep(7)  # the adoption is over, and planning too
            after = seen.until(holding(2))
        assert after.version.epoch > before.version.epoch
        assert list(after.pools) == list(before.pools)
        for pool in mesh.pools:
            loads = [line for line in pool.lines if "0 unloaded" in line]
            assert not any("unloaded" in line and line not in loads for line in pool.lines)
    traffic.assert_right()
    assert traffic.finished


def test_pools_that_have_only_their_part_of_the_checkpoint_serve(
    model: Path, expected: list[int], tmp_path: Path
):
    flags = ("--host", "east:400MiB", "--host", "west:400MiB", "--format", "f32")
    done = CliRunner().invoke(app, ["model", "split", str(model), "--out", str(tmp_path), *flags])
    assert done.exit_code == 0, done.output
    measured = ("--experts-per-s", "0")
    pools = [
        ("--model", str(tmp_path / name), "--pool-id", name, *measured) for name in ("east", "west")
    ]
    attention = ("--model", str(tmp_path / "attention"))
    with Mesh(model, pools, attention_flags=attention) as mesh:
        request = Request(mesh.attention.address, max_tokens=TOKENS).wait(BUSY_S)
        assert request.tokens == expected
        shown = CliRunner().invoke(app, ["pool", "list", "--router", mesh.router.address, "--json"])
        assert all(pool["experts_per_s"] > 1 for pool in json.loads(shown.stdout)["pools"])
