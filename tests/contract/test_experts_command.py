"""`expertmesh experts`, against a router on the test's loop."""

import asyncio
import json
from pathlib import Path

from router_harness import ATTENTION, EXPERTS, LAYERS, WAIT_S, Joined, register, status
from test_pool_command import two_pools
from typer.testing import CliRunner, Result

from expertmesh.cli import app
from expertmesh.heat_map import heat_rows, imbalance
from protos import router_pb2


async def run(*arguments: object) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, ["experts", *map(str, arguments)])


async def test_counts_are_shown_recorded_and_placed_by(tmp_path: Path):
    async with two_pools() as (router, stub, _):
        assert "no token" in (await run("show", "--router", router)).stdout
        unchanged = await run("rebalance", "--router", router, "--json")
        assert json.loads(unchanged.stdout) == {"moving_pieces": 0}
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
        done = await run("record", "--router", router, "--seconds", 0.1, "--out", file)
        assert done.exit_code == 0
        assert json.loads(file.read_text())["tokens"] == [[0] * EXPERTS] * LAYERS  # since it began
        shown = (await run("show", "--router", router)).stdout
        assert "hottest 8.0 x the mean" in shown
        again = await run("rebalance", "--router", router, "--json")
        assert json.loads(again.stdout) == {"moving_pieces": 0}


def test_the_map_is_dark_where_the_tokens_go():
    assert heat_rows([[0, 0], [1, 2]]) == ["   0 |  |", "   1 |=@|"]
    assert len(heat_rows([[1] * 256])[0]) == len("   0 ||") + 128
    assert imbalance([0, 0]) == 0.0
    assert imbalance([3, 1]) == 1.5
