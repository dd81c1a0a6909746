"""The PostgreSQL store answers as a dictionary, and gateways that share it keep out of each
other's way. Against a real server."""

import asyncio
from collections.abc import Iterator
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from gateway.store.database import VERSION, prepare_tables
from gateway.store.postgres import PostgresDatabase
from gateway.store.response_store import Kind, StoreError, UnknownEntry
from tests.support.gateway.postgres import Server, running_server
from tests.support.gateway.store_machine import StoreMachine
from tests.support.gateway.stores import (
    CHAIN,
    LONG_CHAIN,
    MIB,
    TTL_S,
    Clock,
    Opened,
    open_store,
    outcome,
    response,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as found:
        yield found


def forget_all(server: Server) -> None:
    database = PostgresDatabase(server.url())
    with database.transaction() as run:
        for table in ("version", "answered", "threads", "entries", "items"):
            run(f"DROP TABLE IF EXISTS stored_{table}")
    database.close()


@pytest.fixture
def url(server: Server) -> str:
    forget_all(server)
    return server.url()


def opened(url: str, clock: Clock | None = None, max_bytes: int = 64 * MIB) -> Opened:
    return open_store(
        PostgresDatabase(url), clock or Clock(), max_bytes=max_bytes, chain=LONG_CHAIN
    )


def test_it_answers_as_a_dictionary(server: Server) -> None:
    class PostgresMachine(StoreMachine):
        begun: ClassVar[list[Clock]] = []

        def open(self, clock: Clock) -> Opened:
            if clock not in self.begun:  # another example: an empty database
                forget_all(server)
                self.begun.append(clock)
            return open_store(PostgresDatabase(server.url()), clock, chain=CHAIN)

    run_state_machine_as_test(
        PostgresMachine,
        settings=settings(
            max_examples=20,
            stateful_step_count=40,
            deadline=None,
            phases=(Phase.reuse, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_gateways_that_start_at_once_make_the_tables_once(url: str) -> None:
    async def start_all() -> None:
        databases = [PostgresDatabase(url) for _ in range(8)]
        await asyncio.gather(*(asyncio.to_thread(prepare_tables, one, "it") for one in databases))
        for one in databases:
            one.close()

    asyncio.run(start_all())


def test_two_gateways_keep_and_sweep_at_once_and_lose_nothing(url: str) -> None:
    clock = Clock()
    one, other = opened(url, clock), opened(url, clock)

    async def fill(store: Opened, name: str) -> None:
        for number in range(150):
            parent = f"{name}{number - 1}" if number % 10 else None
            await store.store.put("t", response(f"{name}{number}", parent_id=parent))
            if number % 20 == 0:
                await store.store.sweep()

    async def both() -> None:
        await asyncio.gather(fill(one, "a"), asyncio.to_thread(lambda: other(fill(other, "b"))))

    one(both())
    for name in "ab":
        for number in range(0, 150, 10):
            last = f"{name}{number + 9}"
            assert len(one(one.store.chain("t", last))) == 10
    assert one.noted.failures == other.noted.failures == []
    clock.now_s += TTL_S + 1
    one(one.store.sweep())
    assert one.noted.gone == {"expired": 300}
    one.close()
    other.close()


def test_a_server_that_comes_back_is_used_again(server: Server, url: str) -> None:
    store = opened(url)
    store(store.store.put("t", response("r1")))
    server.stop()
    with pytest.raises(StoreError) as refused:
        store(store.store.put("t", response("r2")))
    assert refused.value.reason == "unavailable"
    server.start()

    async def until_stored() -> None:
        for _ in range(100):
            try:
                return await store.store.put("t", response("r3", parent_id="r1"))
            except StoreError:
                await asyncio.sleep(0.1)
        raise AssertionError("the server is back and not used")

    store(until_stored())
    assert [entry.id for entry in store(store.store.chain("t", "r3"))] == ["r1", "r3"]
    store.close()


def test_a_connection_that_was_cut_costs_no_answer(url: str) -> None:
    store, other = opened(url), PostgresDatabase(url)
    store(store.store.put("t", response("r1")))
    with other.transaction() as run:
        run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    store(store.store.put("t", response("r2", parent_id="r1")))
    assert len(store(store.store.chain("t", "r2"))) == 2
    other.close()
    store.close()


def test_a_server_that_is_away_at_the_start_does_not_keep_the_gateway_from_starting(
    server: Server, url: str
) -> None:
    server.stop()
    store = opened(url)
    server.start()
    assert store.noted.failures[:1] == ["unavailable"]
    store.close()


def test_it_makes_room_too(url: str) -> None:
    store = opened(url, max_bytes=MIB)
    for number in range(40):
        store.clock.now_s += 1
        store(store.store.put("t", response(f"r{number}", output=b"x" * 50_000)))
        store(store.store.sweep())
    assert store.noted.gone["room"] > 10
    unknown = outcome(lambda: store(store.store.get("t", Kind.RESPONSE, "r0")))
    assert unknown == (UnknownEntry, "r0")
    assert store(store.store.get("t", Kind.RESPONSE, "r39")).id == "r39"
    store.close()


def test_tables_of_a_newer_version_are_refused(url: str) -> None:
    opened(url).close()
    database = PostgresDatabase(url)
    with database.transaction() as run:
        run("UPDATE stored_version SET version = ?", VERSION + 1)
    database.close()
    with pytest.raises(ValueError, match=f"of version {VERSION + 1}"):
        opened(url)


def test_an_unreadable_url_is_not_repeated() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(ValueError, match="the URL cannot be read") as refused:
        PostgresDatabase("postgresql://user:hunter2secret@[bad")
    assert "hunter2secret" not in str(refused.value)
