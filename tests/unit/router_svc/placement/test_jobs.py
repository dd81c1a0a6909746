"""Plans are computed in another thread and used only for pools that have not changed since."""

import asyncio
from concurrent.futures import Executor, Future

import pytest

from router_svc.placement.goals import PlacementRules
from router_svc.placement.jobs import MAX_REDONE
from rpc.errors import NotReady
from tests.support.router_svc.mesh import POOL, holds, mesh_of, register, status


class Held(Executor):
    """Computes when told to."""

    def __init__(self):
        self.waiting = []

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def compute(self):
        for future, work in self.waiting:
            future.set_result(work())
        self.waiting = []


@pytest.fixture
def mesh():
    rules = PlacementRules(plan_delay_s=0.0, replicas=1)
    made = mesh_of(rules=rules, executor=Held(), max_members=100)
    made.executor = made.placing.planning.executor
    return made


def join(mesh, name, now_s):
    pool = mesh.join(register(name, POOL), "", now_s)
    pool.reachable = True
    mesh.report(pool, status(), now_s)
    return pool


def test_nothing_waits_for_a_plan_and_it_is_carried_out_when_it_is_there(mesh):
    pool = join(mesh, "a", 0.0)
    for now_s in (0.0, 1.0, 2.0):
        assert mesh.new_assignments(now_s) == []
        mesh.report(pool, status(), now_s)
        assert mesh.sweep(now_s) == []
    assert len(mesh.executor.waiting) == 1  # one plan at a time
    mesh.executor.compute()
    assert set(holds(mesh.new_assignments(3.0))) == {"a"}


def test_a_plan_for_pools_that_have_changed_meanwhile_is_made_again(mesh):
    join(mesh, "a", 0.0)
    mesh.new_assignments(0.0)
    join(mesh, "b", 1.0)
    mesh.executor.compute()
    assert mesh.new_assignments(1.0) == []
    mesh.executor.compute()
    given = holds(mesh.new_assignments(1.0))
    assert set(given) == {"a", "b"}
    assert not given["a"] & given["b"]


def test_where_pools_come_all_the_time_a_plan_counts_for_those_that_stayed(mesh):
    join(mesh, "a", 0.0)
    mesh.new_assignments(0.0)
    for number in range(MAX_REDONE):
        join(mesh, f"b{number}", 1.0)
        mesh.executor.compute()
        assert mesh.new_assignments(1.0) == []
    goodbye = join(mesh, "c", 1.0)
    mesh.leave(mesh.members.get(("pool", "b0")), 1.0, said_goodbye=True)
    mesh.executor.compute()
    given = holds(mesh.new_assignments(1.0))
    assert {"a", "b1"} <= set(given)
    assert not {"b0", goodbye.member_id} & set(given)
    mesh.executor.compute()  # and another plan is made for the present pools
    mesh.new_assignments(2.0)
    assert goodbye.goal is not None


def test_what_a_plan_raises_is_not_swallowed(mesh):

    join(mesh, "a", 0.0)
    mesh.new_assignments(0.0)
    future, _ = mesh.executor.waiting.pop()
    future.set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        mesh.new_assignments(1.0)


async def test_an_operators_rebalancing_is_refused_when_pools_came_meanwhile(mesh):
    join(mesh, "a", 0.0)
    mesh.new_assignments(0.0)
    mesh.executor.compute()
    mesh.new_assignments(0.0)
    asked = asyncio.ensure_future(mesh.rebalance(1.0))
    await asyncio.sleep(0)
    join(mesh, "b", 1.0)
    mesh.executor.compute()
    with pytest.raises(NotReady, match="try again"):
        await asked
