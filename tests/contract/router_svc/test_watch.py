"""Watching the topology: order, ACKs, restarts, and a router that is down."""

import asyncio

import pytest

from protos import router_pb2
from rpc.mesh.pieces import Pieces
from rpc.mesh.topology import TopologyWatcher, version_of
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
    uncovered,
    until,
)


@pytest.fixture
async def watchers():
    """Start watchers that append what they receive to the test's own list."""
    started = []

    async def start(router: str) -> tuple[TopologyWatcher, list[router_pb2.Topology]]:
        seen: list[router_pb2.Topology] = []
        watcher = TopologyWatcher(router, None, watcher_id="test", on_change=seen.append)
        await watcher.start()
        started.append(watcher)
        return watcher, seen

    yield start
    for watcher in started:
        await watcher.stop()


async def test_a_watcher_gets_each_change_in_order(watchers):
    async with running_router() as router, stub_of(router) as stub, listening() as address:
        watcher, seen = await watchers(str(router.address))
        await until(lambda: watcher.latest is not None)
        assert watcher.connected
        pool = Joined(stub)
        await pool.say(register(address=address, offer=offer()))
        await pool.hear("welcome")
        for experts in range(1, 9):
            await pool.say(status(Pieces.grid(range(3), range(experts))))
            wanted = 3 * (8 - experts)
            await until(lambda wanted=wanted: seen[-1].uncovered_pieces == wanted)
        versions = [version_of(topology) for topology in seen]
        assert versions == sorted(set(versions))
        assert len({epoch for epoch, _ in versions}) == 1
        assert watcher.latest is seen[-1]


async def test_each_snapshot_is_acked():
    async with running_router(lease_ms=60_000) as router, stub_of(router) as stub:
        call = stub.WatchTopology(timeout=60)
        await call.write(router_pb2.WatchTopologyRequest(watcher_id="w"))
        topology = (await asyncio.wait_for(call.read(), WAIT_S)).topology
        await call.write(router_pb2.WatchTopologyRequest(acked=topology.version))
        (watcher,) = router._publisher._watchers
        await until(lambda: watcher.acked == version_of(topology))
        call.cancel()
        await until(lambda: not router._publisher._watchers)


@pytest.mark.timeout(300)
@pytest.mark.slow
async def test_a_watcher_that_does_not_read_gets_only_the_newest_when_it_does():
    # Its pools send nothing after they have joined: on busy cores that may take longer than 5 s.
    async with running_router(lease_ms=60_000) as router, stub_of(router) as stub:
        call = stub.WatchTopology(timeout=240)  # 24 pools join first
        await call.write(router_pb2.WatchTopologyRequest(watcher_id="slow"))
        # Each entry is 60 kB and each change publishes all of them, so that the
        # transport's window is full long before the last change.
        sparse = Pieces.grid(range(250), range(0, 256, 2))
        sizes = {"num_layers": 250, "num_experts": 256}
        num_pools = 24
        async with listening() as address:
            pools = []  # each joins as soon as its stream is open: the router waits 10 s for that
            for i in range(num_pools):
                pools.append(pool := Joined(stub))
                await pool.say(register(f"pool-{i:02}", address=address, offer=offer(), **sizes))
                await pool.hear("welcome")
                await pool.say(status(sparse))
                await until(
                    lambda i=i: (
                        len(router.mesh.book.latest.pools) == i + 1
                        and router.mesh.book.latest.pools[i].pieces.layers
                    )
                )
            newest = version_of(router.mesh.book.latest)
            received = []
            while not received or received[-1] < newest:
                response = await asyncio.wait_for(call.read(), WAIT_S)
                received.append(version_of(response.topology))
            assert received == sorted(set(received))
            assert len(received) < newest[1]
        call.cancel()


async def test_the_topology_outlives_the_router_and_a_restart_brings_a_higher_epoch(
    watchers, tmp_path
):
    state = tmp_path / "epoch"
    async with listening() as address:
        async with running_router(state=state) as router, stub_of(router) as stub:
            port = router.address.port
            watcher, seen = await watchers(str(router.address))
            pool = Joined(stub)
            await pool.say(register(address=address, offer=offer()))
            await pool.hear("welcome")
            await pool.say(status(EVERYTHING))
            await until(lambda: seen and seen[-1].pools and seen[-1].uncovered_pieces == 0)
        await until(lambda: not watcher.connected)
        before = watcher.latest
        assert before is not None
        assert pieces_of(before.pools[0].pieces) == EVERYTHING

        flags = {"listen": f"127.0.0.1:{port}", "state": state, "adopt_ms": 1000}
        async with running_router(**flags) as router, stub_of(router) as stub:
            await asyncio.sleep(0.5)  # reconnected by now, but only adopting
            assert watcher.latest is before
            pool = Joined(stub)
            await pool.say(register(address=address, offer=offer()))
            await pool.hear("welcome")
            await pool.say(status(EVERYTHING))
            await until(lambda: version_of(watcher.latest) > version_of(before))
            assert watcher.latest.version.epoch == before.version.epoch + 1
            assert watcher.latest.uncovered_pieces == 0


async def test_a_fresh_watcher_need_not_wait_for_the_adoption_to_end(watchers, tmp_path):
    state = tmp_path / "epoch"
    state.write_text("41\n")
    async with running_router(state=state, adopt_ms=60_000) as router:
        watcher, _ = await watchers(str(router.address))
        await until(lambda: watcher.latest is not None)
        assert watcher.latest.version.epoch == 42


async def test_nothing_is_removed_and_nothing_moved_while_adopting(tmp_path):
    state = tmp_path / "epoch"
    state.write_text("41\n")
    async with running_router(state=state, adopt_ms=1500) as router, stub_of(router) as stub:
        async with listening() as address:
            pools = [Joined(stub) for _ in range(3)]
            for i, pool in enumerate(pools):
                await pool.say(register(f"pool-{i}", address=address, offer=offer()))
                await pool.hear("welcome")
                await pool.say(status(Pieces.grid([i], range(8))))
            await until(lambda: uncovered(router) == 0)
            pools[0].call.cancel()
            await until(lambda: len(router.mesh.members) == 2)
            await asyncio.sleep(0.1)
            assert uncovered(router) == 0
            assert all(member.hold is None for member in router.mesh.members)
            await until(lambda: uncovered(router) == 8)
            held = pieces_of((await pools[1].hear("assignment")).hold)
            assert held == EVERYTHING


async def test_an_older_or_equal_topology_is_ignored():
    seen: list[router_pb2.Topology] = []
    watcher = TopologyWatcher("127.0.0.1:1", None, watcher_id="test", on_change=seen.append)

    def topology(epoch: int, counter: int) -> router_pb2.Topology:
        version = router_pb2.Version(epoch=epoch, counter=counter)
        return router_pb2.Topology(version=version)

    for version in [(1, 5), (1, 4), (0, 9), (2, 1), (1, 9), (2, 1)]:
        watcher._take(topology(*version))
    assert [version_of(one) for one in seen] == [(1, 5), (2, 1)]
    assert watcher.latest is seen[-1]


@pytest.mark.parametrize("error", [RuntimeError("callback bug"), ValueError("callback bug")])
async def test_a_topology_that_is_not_taken_does_not_end_the_watching(caplog, error):
    offered: list[tuple[int, int]] = []

    def fails(topology: router_pb2.Topology) -> None:
        offered.append(version_of(topology))
        raise error

    async with running_router() as router, stub_of(router) as stub:
        watcher = TopologyWatcher(str(router.address), None, watcher_id="test", on_change=fails)
        await watcher.start()
        await until(lambda: len(offered) == 1)
        await Joined(stub).say(register(offer=offer()))
        await until(lambda: len(offered) == 2)
        await watcher.stop()
        assert watcher.latest is None
        assert offered == sorted(set(offered)), "each is tried once"
        assert "callback bug" in caplog.text


def test_what_could_not_be_taken_is_not_acknowledged_and_the_last_good_one_stays():
    """The router unloads pieces when it sees such an ACK."""
    taken: list[tuple[int, int]] = []

    def take(topology: router_pb2.Topology) -> None:
        if topology.version.counter == 6:
            raise ValueError("ranks [0, 0]")
        taken.append(version_of(topology))

    watcher = TopologyWatcher("127.0.0.1:1", None, watcher_id="test", on_change=take)
    acked = []
    for counter in (5, 6, 7):
        version = router_pb2.Version(epoch=1, counter=counter)
        watcher._take(router_pb2.Topology(version=version))
        acked.append(watcher._request().acked.counter)
    assert acked == [5, 5, 7]
    assert taken == [(1, 5), (1, 7)]


async def test_losing_the_router_is_logged_once_however_long_it_is_gone(caplog, watchers):
    async with running_router() as router:
        watcher, _ = await watchers(str(router.address))
        await until(lambda: watcher.connected)
    await until(lambda: not watcher.connected)
    await asyncio.sleep(1.0)
    assert caplog.text.count("lost router") == 1
