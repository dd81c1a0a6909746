"""The client's side of membership against a real router."""

import asyncio
import threading
import time

import pytest

from protos import router_pb2
from rpc.access.secret import MeshSecret, write_secret
from rpc.channel import Access
from rpc.mesh.lease import FINAL_REFUSALS, STOP_TIMEOUT_S, Lease, backoff_s
from rpc.mesh.pieces import Pieces
from tests.support.router_svc.harness import (
    EVERYTHING,
    answering,
    listening,
    offer,
    pieces_of,
    register,
    running_router,
    uncovered,
    until,
)

READY = router_pb2.MEMBER_STATE_READY


class Pool:
    """A member that loads at once what it is told to hold."""

    def __init__(self, router: str, address: str, access: Access | None = None, **fields):
        self.ready = Pieces()
        self.refusals: list[str] = []
        self.statuses = 0
        self.assignments = 0
        fields = {"offer": offer(), **fields}
        self.lease = Lease(
            router,
            access,
            register(address=address, **fields),
            self._status,
            self._assigned,
            self.refusals.append,
        )
        self.lease.start()

    def _status(self) -> router_pb2.MemberStatus:
        self.statuses += 1
        return router_pb2.MemberStatus(ready=self.ready.to_message(), state=READY)

    def _assigned(self, assignment: router_pb2.Assignment) -> None:
        self.ready = pieces_of(assignment.hold)
        self.assignments += 1
        self.lease.poke()


@pytest.fixture
async def start_pool():
    pools = []
    async with listening() as address:

        def start(router, at=address, **fields) -> Pool:
            pools.append(Pool(str(router), at, **fields))
            return pools[-1]

        yield start
        for pool in pools:
            await asyncio.to_thread(pool.lease.stop)


async def test_a_pool_joins_loads_what_it_is_told_and_covers_the_model(start_pool):
    async with running_router(lease_ms=60_000) as router:
        pool = start_pool(router.address)
        await until(lambda: uncovered(router) == 0)
        assert pool.lease.joined
        assert pool.ready == EVERYTHING


async def test_statuses_keep_the_lease_while_the_members_loop_is_busy(start_pool):
    async with running_router(lease_ms=300) as router:
        pool = start_pool(router.address)
        await until(lambda: uncovered(router) == 0)
        before = pool.statuses
        await until(lambda: pool.statuses - before >= 9)  # one for each third of the lease
        assert pool.assignments == 1  # never lost, never joined again


async def test_a_stall_of_the_router_itself_is_not_blamed_on_the_members(start_pool):
    async with running_router(lease_ms=300) as router:
        pool = start_pool(router.address)
        await until(lambda: uncovered(router) == 0)
        time.sleep(1.0)  # noqa: ASYNC251 (the router's loop is this one)
        await asyncio.sleep(0.5)
        assert pool.assignments == 1


async def test_stopping_leaves_cleanly_and_quickly(start_pool):
    async with running_router(lease_ms=60_000) as router:
        pool = start_pool(router.address)
        await until(lambda: uncovered(router) == 0)
        started_s = time.monotonic()
        await asyncio.to_thread(pool.lease.stop)
        assert time.monotonic() - started_s < STOP_TIMEOUT_S + 0.5
        await until(lambda: not router.mesh.book.latest.pools)  # gone at once: it said goodbye
        assert not pool.lease.joined
        assert "lease" not in [thread.name for thread in threading.enumerate()]
        await asyncio.to_thread(pool.lease.stop)  # again: nothing happens


async def test_a_lease_comes_back_after_the_router_and_logs_loss_and_return_once(
    start_pool, caplog
):
    caplog.set_level("INFO", logger="rpc.mesh.lease")
    async with running_router() as router:
        port = router.address.port
        pool = start_pool(router.address)
        await until(lambda: uncovered(router) == 0)
    await until(lambda: not pool.lease.joined)
    await asyncio.sleep(0.8)
    async with running_router(listen=f"127.0.0.1:{port}") as router:
        await until(lambda: uncovered(router) == 0)
    assert caplog.text.count("no lease from router") in (1, 2)  # 2: the second router ended too
    assert caplog.text.count("joined router") == 2
    assert not pool.refusals


async def test_a_lease_waits_for_a_router_that_starts_later(start_pool, unused_tcp_port):
    pool = start_pool(f"127.0.0.1:{unused_tcp_port}")
    await asyncio.sleep(0.5)
    assert not pool.lease.joined
    async with running_router(listen=f"127.0.0.1:{unused_tcp_port}") as router:
        await until(lambda: uncovered(router) == 0)


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"checkpoint_id": "sha256:two", "member_id": "other"}, "sha256:two"),
        ({"incarnation": 4}, "newer incarnation 5"),
        ({"protocol_major": 99, "member_id": "other"}, "protocol major 99"),
        ({"num_layers": 0, "member_id": "other"}, "layers"),
    ],
)
async def test_a_refusal_is_final_and_its_reason_reaches_the_service(start_pool, fields, reason):
    async with running_router() as router:
        start_pool(router.address, incarnation=5)
        await until(lambda: len(router.mesh.members) == 1)
        refused = start_pool(router.address, **fields)
        await until(lambda: bool(refused.refusals))
        assert reason in refused.refusals[0]
        await asyncio.sleep(0.5)
        assert len(refused.refusals) == 1
        assert not refused.lease._thread.is_alive()


async def test_an_older_incarnation_is_told_that_it_is_fenced(start_pool, tmp_path):
    write_secret(tmp_path / "secret")
    secret = MeshSecret(tmp_path / "secret")
    async with (
        running_router(secret_file=tmp_path / "secret") as router,
        answering(incarnation=6) as there,
    ):
        older = start_pool(router.address, access=secret, incarnation=5)
        await until(lambda: uncovered(router) == 0)
        newer = start_pool(router.address, access=secret, incarnation=6, at=there)
        await until(lambda: bool(older.refusals))
        assert "newer incarnation 6" in older.refusals[0]
        await until(lambda: newer.lease.joined)
        assert not newer.refusals


async def test_stopping_before_starting_or_without_a_router_is_quick(unused_tcp_port):
    def lease() -> Lease:
        return Lease(
            f"127.0.0.1:{unused_tcp_port}",
            None,
            register(),
            router_pb2.MemberStatus,
            lambda assignment: None,
            lambda reason: None,
        )

    lease().stop()
    lost = lease()
    lost.start()
    await asyncio.sleep(0.2)
    started_s = time.monotonic()
    await asyncio.to_thread(lost.stop)
    assert time.monotonic() - started_s < STOP_TIMEOUT_S + 0.5
    assert not lost._thread.is_alive()


def test_waiting_grows_to_a_second_with_jitter():
    waits = [[backoff_s(failures) for _ in range(50)] for failures in range(8)]
    assert all(0.07 < wait < 0.13 for wait in waits[0])
    assert all(0.7 < wait < 1.3 for wait in waits[-1])
    assert len(set(waits[0])) > 1
    assert backoff_s(10**9) < 1.3


def test_only_answers_that_no_repetition_changes_are_final():
    assert {code.name for code in FINAL_REFUSALS} == {
        "FAILED_PRECONDITION",
        "INVALID_ARGUMENT",
        "PERMISSION_DENIED",
    }
