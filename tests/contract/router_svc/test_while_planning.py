"""A router answers members and operators while a plan is being computed."""

import asyncio
import threading

import pytest

from protos import router_pb2
from router_svc.placement import goals
from tests.support.router_svc.harness import (
    EVERYTHING,
    WAIT_S,
    Joined,
    listening,
    offer,
    pieces_of,
    register,
    running_router,
    status,
    stub_of,
)


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch):
    """Block the planner: the first event says that it was called, the second lets it go on."""
    called, go_on, plan = threading.Event(), threading.Event(), goals.plan

    def wait(*args, **options):
        called.set()
        assert go_on.wait(WAIT_S)
        return plan(*args, **options)

    monkeypatch.setattr(goals, "plan", wait)
    yield called, go_on
    go_on.set()


async def test_heartbeats_and_questions_are_answered_while_a_plan_is_computed(blocked):
    called, go_on = blocked
    async with (
        listening() as address,
        running_router(plan_delay_ms=0, lease_ms=1000, replicas=1) as router,
        stub_of(router) as stub,
    ):
        pool = Joined(stub)
        await pool.say(register(address=address, offer=offer()))
        await pool.hear("welcome")
        await pool.say(status())
        assert await asyncio.to_thread(called.wait, WAIT_S)
        # Longer than a lease: who reports is seen, and who asks is answered.
        for _ in range(15):
            await pool.say(status())
            answer = await stub.GetTopology(router_pb2.GetTopologyRequest(), timeout=5)
            assert [entry.pool_id for entry in answer.topology.pools] == ["pool-a"]
            assert answer.members[0].silent_ms < 1000
            await asyncio.sleep(0.1)
        other = Joined(stub)
        await other.say(register("pool-b", address=address, offer=offer()))
        await other.hear("welcome")
        go_on.set()
        assert pieces_of((await pool.hear("assignment")).hold) == EVERYTHING
