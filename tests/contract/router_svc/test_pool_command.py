"""`expertmesh pool`, against a router on the test's loop and pools made of frames."""

import asyncio
import json
import re

from typer.testing import CliRunner, Result

from expertmesh.cli import app
from tests.support.router_svc.harness import (
    EVERYTHING,
    topology_where,
)
from tests.support.two_pools import two_pools


async def run(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, ["pool", *arguments])


async def test_list_shows_state_and_pieces():
    async with two_pools() as (router, _, _):
        report = json.loads((await run("list", "--router", router, "--json")).stdout)
        assert [pool["pool_id"] for pool in report["pools"]] == ["east", "west"]
        assert {pool["state"] for pool in report["pools"]} == {"ready"}
        assert sum(pool["pieces_served"] for pool in report["pools"]) == len(EVERYTHING)
        assert "east" in (await run("list", "--router", router)).stdout


async def test_drain_empties_a_pool_and_undo_fills_it_again():
    async with two_pools() as (router, stub, pools):
        done = await run("drain", "east", "--router", router, "--timeout", "20", "--json")
        assert json.loads(done.stdout)["held_pieces"] == 0
        assert done.stderr == ""
        assert not pools["east"].holds[-1]
        assert pools["west"].holds[-1] == EVERYTHING
        assert (await run("drain", "east", "--router", router, "--undo")).exit_code == 0
        topology = await topology_where(
            stub, lambda t: all(entry.pieces.layers for entry in t.pools)
        )
        assert topology.uncovered_pieces == 0


async def test_a_drain_says_what_it_waits_for():
    async with two_pools() as (router, _, _):
        done = await run("drain", "east", "--router", router, "--timeout", "20")
        assert re.match(r"east still holds \d+ pieces; waiting for at most ", done.stderr)
        assert done.stdout == "east holds nothing and can be stopped\n"


async def test_what_cannot_be_is_one_clear_line():
    async with two_pools() as (router, _, _):
        unknown = await run("drain", "north", "--router", router)
        assert "no pool 'north'; there are: east, west" in str(unknown.exception)
    nobody = await run("list", "--router", "127.0.0.1:9")
    assert "no router answers" in str(nobody.exception)
    assert nobody.exception.exit_code == 3
    assert (await run("list", "--router", "nonsense")).exception.exit_code == 2
