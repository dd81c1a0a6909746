"""Silent connections to gRPC ports are capped and closed, and do not keep others out."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rpc.config import SERVER_OPTIONS
from tests.support.expert_svc.execute_harness import WAIT_S, calling, running_pool
from tests.support.mesh_certificates import Authority

CAP = 12


@pytest.fixture
def opened() -> Iterator[list[socket.socket]]:
    connections: list[socket.socket] = []
    yield connections
    for connection in connections:
        connection.close()


async def open_silent(address: str, opened: list[socket.socket], count: int) -> None:
    host, port = address.rsplit(":", 1)
    for _ in range(count):
        connection = await asyncio.to_thread(socket.create_connection, (host, int(port)), WAIT_S)
        connection.setblocking(False)
        opened.append(connection)


def is_open(connection: socket.socket) -> bool:
    """As far as its peer has told: gRPC's first frames may lie there to be read."""
    with contextlib.suppress(BlockingIOError):
        try:
            while connection.recv(4096):
                pass
        except ConnectionResetError:
            pass
        return False
    return True


async def until_open(opened: list[socket.socket], most: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while sum(map(is_open, opened)) > most:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("with_tls", [False, True], ids=["plaintext", "handshakes"])
async def test_connections_beyond_the_cap_are_closed_and_the_callers_served(
    with_tls: bool, tmp_path: Path, opened: list[socket.socket]
) -> None:
    mesh = Authority(tmp_path)
    tls = mesh.issue("expert") if with_tls else None
    caller_tls = mesh.issue("attention") if with_tls else None
    async with (
        running_pool(tls=tls, max_connections=CAP) as pool,
        calling(pool.address, tls=caller_tls) as caller,
    ):
        await open_silent(pool.address, opened, 3 * CAP)
        await until_open(opened, CAP - 1)
        assert (await asyncio.wait_for(caller.result_of(caller.call()), WAIT_S)).call_id == 1
        for connection in opened:
            connection.close()
        async with asyncio.timeout(WAIT_S):  # their places are free again
            while True:
                try:
                    async with calling(pool.address, tls=caller_tls) as late:
                        assert (await late.result_of(late.call())).call_id == 1
                    break
                except Exception:  # however gRPC reports a connection that is closed at once
                    await asyncio.sleep(0.1)


@pytest.mark.parametrize("with_tls", [False, True], ids=["plaintext", "handshakes"])
async def test_half_open_connections_are_given_up(
    with_tls: bool, tmp_path: Path, opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC's own limit is two minutes; the test sets a shorter one."""
    options = dict(SERVER_OPTIONS)
    assert options["grpc.server_handshake_timeout_ms"] <= 30_000
    options["grpc.server_handshake_timeout_ms"] = 500
    monkeypatch.setattr("rpc.process.server.SERVER_OPTIONS", tuple(options.items()))
    mesh = Authority(tmp_path)
    async with running_pool(tls=mesh.issue("expert") if with_tls else None) as pool:
        await open_silent(pool.address, opened, 20)
        await until_open(opened, 0)


async def test_a_connection_in_use_has_no_greatest_age(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = dict(SERVER_OPTIONS)
    assert "grpc.max_connection_age_ms" not in options
    assert options["grpc.max_connection_idle_ms"] >= 60_000
    options["grpc.max_connection_idle_ms"] = 300
    monkeypatch.setattr("rpc.process.server.SERVER_OPTIONS", tuple(options.items()))
    async with running_pool() as pool, calling(pool.address) as caller:
        await asyncio.sleep(1.0)  # silent, but its stream is open
        assert (await asyncio.wait_for(caller.result_of(caller.call()), WAIT_S)).call_id == 1
