"""What a browser reaches through the checking proxy, and what it does not."""

import asyncio
import contextlib
import ipaddress
import itertools
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from expertmesh.agent.web.addresses import Address
from expertmesh.agent.web.guard import AllowedHost, Guard
from expertmesh.agent.web.proxy import CheckingProxy, ProxyLimits, Traffic
from tests.support.expertmesh.local_site import Routes, Site, answer, local_site, silence

WAIT_S = 10.0
USUAL = ProxyLimits()


@dataclass
class Behind:
    """A site behind a proxy that allows only it."""

    site: Site
    port: int
    traffic: Traffic

    async def ask(self, data: bytes) -> bytes:
        """All that the proxy answers until it closes."""
        async with asyncio.timeout(WAIT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            with contextlib.closing(writer):
                writer.write(data)
                return await reader.read()

    async def get(self, url: str, *fields: str) -> bytes:
        lines = [f"GET {url} HTTP/1.1", "Host: x", *fields, "", ""]
        return await self.ask("\r\n".join(lines).encode())


@asynccontextmanager
async def behind(
    routes: Routes, limits: ProxyLimits = USUAL, guard: Guard | None = None
) -> AsyncIterator[Behind]:
    async with local_site(routes) as site:
        proxy = CheckingProxy(guard or Guard([site.allowed]), limits)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            async with proxy.serving(listener):
                yield Behind(site, listener.getsockname()[1], proxy.traffic)


async def test_an_allowed_page_goes_through() -> None:
    async with behind({"/a": answer("hello")}) as proxy:
        said = await proxy.get(proxy.site.url("/a?b"), "Proxy-Connection: keep-alive")
    assert said.startswith(b"HTTP/1.1 200")
    assert said.endswith(b"Connection: close\r\n\r\nhello")
    assert proxy.site.heads[0].startswith("GET /a?b HTTP/1.1\r\nHost: 127.0.0.1:")
    assert proxy.traffic.refused == []


async def test_a_body_is_passed_on_and_a_second_request_is_not() -> None:
    received = b""

    async def echo(writer: asyncio.StreamWriter) -> None:
        writer.write(answer("done"))

    async with behind({"/": echo}) as proxy:
        url = proxy.site.url()
        head = f"POST {url} HTTP/1.1\r\nContent-Length: 3\r\n\r\n".encode()
        received = await proxy.ask(head + b"abc" + b"GET http://10.0.0.1/ HTTP/1.1\r\n\r\n")
    assert received.endswith(b"done")
    assert len(proxy.site.heads) == 1


@pytest.mark.parametrize(
    "url",
    [
        *("http://169.254.169.254/latest", "http://127.0.0.1:1/", "http://localhost:9/"),
        *("http://[::1]/", "http://[::ffff:7f00:1]/", "http://0/", "http://10.0.0.1:8080/"),
        *("http://2130706433/", "http://user@127.0.0.1/", "/", "https://127.0.0.1/"),
    ],
)
async def test_a_forbidden_place_is_refused_and_noted(url: str) -> None:
    async with behind({}) as proxy:
        said = await proxy.get(url)
    assert said.startswith(b"HTTP/1.1 403")
    assert b"Cross-Origin-Resource-Policy: same-origin" in said
    assert len(proxy.traffic.refused) == 1
    assert proxy.site.heads == []


@pytest.mark.parametrize("target", ["127.0.0.1:1", "169.254.169.254:80", "localhost:443", "a:22"])
async def test_a_tunnel_to_a_forbidden_place_is_refused(target: str) -> None:
    async with behind({}) as proxy:
        said = await proxy.ask(f"CONNECT {target} HTTP/1.1\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 403")


async def test_a_tunnel_carries_bytes_both_ways() -> None:
    async with behind({"/": answer("hello")}) as proxy:
        target = f"127.0.0.1:{proxy.site.port}"
        said = await proxy.ask(f"CONNECT {target} HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200")
    assert said.endswith(b"hello")


async def test_a_name_is_resolved_for_each_connection_and_used_once() -> None:
    turn = itertools.cycle(["127.0.0.1", "10.0.0.1"])

    async def rebinding(host: str, port: int) -> list[Address]:
        return [ipaddress.ip_address(next(turn))]

    async def refuse_all(host: str, port: int) -> list[Address]:
        return [ipaddress.ip_address("127.0.0.1")]

    async with behind({"/": answer("hello")}, guard=Guard((), rebinding, set)) as proxy:
        assert (await proxy.get(proxy.site.url(host="a.test"))).startswith(b"HTTP/1.1 403")
    allowed = Guard([AllowedHost("a.test", None)], refuse_all)
    async with behind({"/": answer("hello")}, guard=allowed) as proxy:
        assert (await proxy.get(proxy.site.url(host="a.test"))).endswith(b"hello")


async def test_a_name_without_address_is_no_refusal() -> None:
    async with behind({}) as proxy:
        assert (await proxy.get("http://browser.invalid/")).startswith(b"HTTP/1.1 502")
    assert proxy.traffic.refused == []


async def test_interim_answers_are_left_out() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer("hello")
    async with behind({"/": early}) as proxy:
        said = await proxy.get(proxy.site.url())
    assert said.startswith(b"HTTP/1.1 200")


async def test_a_page_cannot_take_more_bytes_than_allowed() -> None:
    limits = ProxyLimits(total_bytes=100_000)
    async with behind({"/": answer(b"a" * 1_000_000)}, limits) as proxy:
        with contextlib.suppress(ConnectionError):
            assert len(await proxy.get(proxy.site.url())) < 300_000
        assert (await proxy.get(proxy.site.url())).startswith(b"HTTP/1.1 403")
    assert proxy.traffic.refused == ["the page takes too many bytes"]


async def test_a_page_cannot_send_more_bytes_than_allowed() -> None:
    limits = ProxyLimits(upload_bytes=10_000)
    async with behind({"/": answer("done")}, limits) as proxy:
        head = f"POST {proxy.site.url()} HTTP/1.1\r\nContent-Length: 90000\r\n\r\n".encode()
        with contextlib.suppress(ConnectionError):
            assert b"done" not in await proxy.ask(head + b"a" * 90_000)
    assert proxy.traffic.over


async def test_connections_beyond_the_limit_wait() -> None:
    limits = ProxyLimits(connections=1)
    async with behind({"/slow": silence, "/": answer("hello")}, limits) as proxy:
        slow = asyncio.create_task(proxy.get(proxy.site.url("/slow")))
        async with asyncio.timeout(WAIT_S):
            while not proxy.site.heads:
                await asyncio.sleep(0.01)
        waiting = asyncio.create_task(proxy.get(proxy.site.url()))
        await asyncio.sleep(0.1)
        assert proxy.site.paths == ["/slow"]
        slow.cancel()
        waiting.cancel()
        await asyncio.gather(slow, waiting, return_exceptions=True)


async def test_nothing_is_left_open_at_the_end() -> None:
    async with behind({"/slow": silence}) as proxy:
        asked = asyncio.create_task(proxy.get(proxy.site.url("/slow")))
        async with asyncio.timeout(WAIT_S):
            while not proxy.site.heads:
                await asyncio.sleep(0.01)
    assert await asked == b""
    with pytest.raises(ConnectionError):
        await proxy.get(proxy.site.url())
