"""A router with two pools, for the commands that ask it."""

import asyncio
import contextlib
from typing import Any

from tests.support.router_svc.harness import (
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
            # Each piece once: the first pool has unloaded what moved to the second.
            lambda t: (
                len(t.pools) == 2
                and sum(len(pieces_of(p.pieces)) for p in t.pools) == len(EVERYTHING)
                and all(p.pieces.layers for p in t.pools)
            ),
        )
        yield str(router.address), stub, pools
        for task in tasks:
            task.cancel()
