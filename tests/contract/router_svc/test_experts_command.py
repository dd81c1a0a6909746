"""`expertmesh experts`, against a router on the test's loop."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from expertmesh.cli import app
from expertmesh.forecasting.heat_map import heat_rows, imbalance, save_heat_map
from protos import router_pb2
from tests.support.router_svc.harness import (
    ATTENTION,
    EXPERTS,
    LAYERS,
    WAIT_S,
    Joined,
    pieces_of,
    register,
    status,
    topology_where,
)
from tests.support.two_pools import two_pools


async def run(*arguments: object) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, ["experts", *map(str, arguments)])


async def test_counts_are_shown_recorded_and_placed_by(tmp_path: Path):
    async with two_pools() as (router, stub, _):
        assert "no token" in (await run("show", "--router", router)).stdout
        unchanged = await run("rebalance", "--router", router, "--json")
        assert json.loads(unchanged.stdout)["moving_pieces"] == 0
        attention = Joined(stub)
        await attention.say(register("attention", role=ATTENTION))
        await attention.hear("welcome")
        # All layers weigh alike, so that nothing is gained by moving one.
        counts = [
            router_pb2.LayerActivations(layer_idx=layer, expert_ids=[5], token_counts=[1000])
            for layer in range(LAYERS)
        ]
        await attention.say(status(activations=counts))
        async with asyncio.timeout(WAIT_S):
            while "no token" in (await run("show", "--router", router)).stdout:
                await asyncio.sleep(0.05)
        tokens = json.loads((await run("show", "--router", router, "--json")).stdout)["tokens"]
        assert tokens == [[0] * 5 + [1000] + [0] * (EXPERTS - 6)] * LAYERS
        file = tmp_path / "load.json"
        idle = await run("record", "--router", router, "--seconds", 0.1, "--out", file)
        assert idle.exit_code == 1
        assert "no token was routed" in str(idle.exception)
        assert not file.exists()
        recording = asyncio.create_task(
            run("record", "--router", router, "--seconds", 2, "--out", file)
        )
        await asyncio.sleep(0.7)
        await attention.say(status(activations=counts))
        assert (await recording).exit_code == 0
        assert json.loads(file.read_text())["tokens"] == tokens  # since it began
        shown = (await run("show", "--router", router)).stdout
        assert "hottest 8.0 x the mean" in shown
        again = await run("rebalance", "--router", router)
        assert "nothing would be gained" in again.stdout
        assert "the router's own last decision" in again.stdout


async def test_what_would_move_is_shown_with_its_reason_before_it_moves():
    async with two_pools(striping="expert") as (router, stub, pools):
        attention = Joined(stub)
        await attention.say(register("attention", role=ATTENTION))
        await attention.hear("welcome")
        await attention.say(
            status(
                activations=[
                    router_pb2.LayerActivations(
                        layer_idx=0, expert_ids=[0], token_counts=[10**6], step_counts=[10**5]
                    )
                ]
            )
        )
        before = [list(pool.holds) for pool in pools.values()]
        async with asyncio.timeout(WAIT_S):
            report = {"moving_pieces": 0}
            while not report["moving_pieces"]:
                shown = await run("rebalance", "--router", router, "--dry-run", "--json")
                report = json.loads(shown.stdout)
        assert [list(pool.holds) for pool in pools.values()] == before
        assert report["imbalance_before"] > report["imbalance_after"]
        heaviest = report["moves"][0]
        assert (heaviest["layer"], heaviest["expert"], heaviest["leaves"]) == (0, 0, [])
        assert heaviest["weight"] > 20
        applied = await run("rebalance", "--router", router)
        assert f"layer 0 expert 0 ({heaviest['weight']:.1f} x the mean): also on" in applied.stdout
        await topology_where(
            stub, lambda t: all((0, 0) in pieces_of(entry.pieces) for entry in t.pools)
        )


async def test_the_heat_map_is_drawn(tmp_path: Path):
    pytest.importorskip("matplotlib")
    save_heat_map([[1, 2, 3], [0, 0, 0]], tmp_path / "heat.png")
    assert (tmp_path / "heat.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="--png"):
        save_heat_map([[1]], tmp_path / "no" / "heat.png")


def test_the_map_is_dark_where_the_tokens_go():
    assert heat_rows([[0, 0], [1, 2]]) == ["   0 |  |", "   1 |=@|"]
    assert len(heat_rows([[1] * 256])[0]) == len("   0 ||") + 128
    assert imbalance([0, 0]) == 0.0
    assert imbalance([3, 1]) == 1.5
