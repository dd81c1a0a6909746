"""`expertmesh pool`, against a router on the test's loop and pools made of frames."""

import asyncio
import contextlib
import json
from typing import Any

from router_harness import (
    EVERYTHING,
    POOL,
    Joined,
    listening,
    offer,
    pieces_of,
    register,
    running_router,
    status,
    stub_of,
    topology_where,
)
from typer.testing import CliRunner, Result

from expertmesh.cli import app


class ObedientPool:
    """Holds what it is told, at once."""

    def __init__(self, stub: Any, name: str, address: str):
        self._joined = Joined(stub)
        self._name, self._address = name, address
        self.holds: list[Any] = []

    async def run(self) -> None:
        await self._joined.say(
            register(self._name, role=POOL, address=self._address, offer=offer())
        )
        await self._joined.hear("welcome")
        await self._joined.say(status())
        while True:
            assignment = await self._joined.hear("assignment")
            self.holds.append(pieces_of(assignment.hold))
            await self._joined.say(status(self.holds[-1], acked_assignment=assignment.version))


@contextlib.asynccontextmanager
async def two_pools(striping="layer"):
    async with (
        running_router(
            replicas=1, plan_delay_ms=50, lease_ms=60_000, striping=striping, settle_ms=100
        ) as router,
        stub_of(router) as stub,
        listening() as address,
    ):
        pools = {name: ObedientPool(stub, name, address) for name in ("east", "west")}
        tasks = [asyncio.create_task(pool.run()) for pool in pools.values()]
        await topology_where(
            stub,
            # Each piece once: what moved when the second came has been given up, too.
            lambda t: (
                len(t.pools) == 2
                and sum(len(pieces_of(p.pieces)) for p in t.pools) == len(EVERYTHING)
                and all(p.pieces.layers for p in t.pools)
            ),
        )
        yield str(router.address), stub, pools
        for task in tasks:
            task.cancel()


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
        assert not pools["east"].holds[-1]
        assert pools["west"].holds[-1] == EVERYTHING
        assert (await run("drain", "east", "--router", router, "--undo")).exit_code == 0
        topology = await topology_where(
            stub, lambda t: all(entry.pieces.layers for entry in t.pools)
        )
        assert topology.uncovered_pieces == 0


async def test_what_cannot_be_is_one_clear_line():
    async with two_pools() as (router, _, _):
        unknown = await run("drain", "north", "--router", router)
        assert "no pool 'north'; there are: east, west" in str(unknown.exception)
    nobody = await run("list", "--router", "127.0.0.1:9")
    assert "no router answers" in str(nobody.exception)
    assert nobody.exception.exit_code == 3
    assert (await run("list", "--router", "nonsense")).exception.exit_code == 2
