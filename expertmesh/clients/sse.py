"""How does a client read server-sent events and the time at which each arrived?

The clock is read when bytes arrive from the socket, before anything is parsed, so that a busy
client does not lengthen the times it measures. Each request has its own connection, which is open
before the request's clock starts.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from expertmesh.clients.http_body import AnswerReader, EventSplitter

CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 600.0
DONE = b"[DONE]"


class HttpError(Exception):
    """The status of an answer was not 200."""

    def __init__(self, status: int, body: str, headers: Mapping[str, str]):
        super().__init__(f"HTTP {status}: {body[:300]}")
        self.status = status
        self.body = body
        self.headers = headers


@dataclass(frozen=True)
class Server:
    """The parts of a base URL, with or without its /v1."""

    host: str
    port: int
    path: str
    tls: bool

    @classmethod
    def parse(cls, base_url: str) -> "Server":
        """Raises ValueError naming what is wrong."""
        parts = urlsplit(base_url if "://" in base_url else f"http://{base_url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"base_url: http:// or https:// and a host, got {base_url!r}")
        tls = parts.scheme == "https"
        path = parts.path.rstrip("/").removesuffix("/v1")
        return cls(parts.hostname, parts.port or (443 if tls else 80), path, tls)

    def client(self, api_key: str | None, timeout_s: float) -> httpx.AsyncClient:
        """For plain requests; the environment's proxies are not used."""
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        return httpx.AsyncClient(
            base_url=self.root, headers=headers, timeout=timeout_s, trust_env=False
        )

    @property
    def root(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.path}"


class EventStream(asyncio.Protocol):
    """One request and its answer."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._reader = AnswerReader()
        self.started_s = 0.0
        """`time.perf_counter()` when the request was written."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._arrived.put_nowait((time.perf_counter(), data))

    def connection_lost(self, error: Exception | None) -> None:
        self._arrived.put_nowait((time.perf_counter(), b""))

    def send(self, request: bytes) -> None:
        self.started_s = time.perf_counter()
        self._transport.write(request)

    async def events(self) -> AsyncIterator[tuple[float, bytes]]:
        """(arrival, data) of each event up to [DONE]. Raises HttpError, BadAnswer, TimeoutError."""
        splitter = EventSplitter()
        async for arrived_s, body in self._parts():
            for data in splitter.feed(body):
                if data == DONE:
                    return
                yield arrived_s, data

    async def _parts(self) -> AsyncIterator[tuple[float, bytes]]:
        reader, failure = self._reader, b""
        while not reader.ended:
            async with asyncio.timeout(SILENCE_TIMEOUT_S):
                arrived_s, data = await self._arrived.get()
            if not data:
                reader.close()
                break
            body = reader.feed(data)
            if reader.status not in (None, 200):
                failure += body
            elif body:
                yield arrived_s, body
        if reader.status != 200:
            raise HttpError(reader.status or 0, failure.decode("utf-8", "replace"), reader.headers)

    def close(self) -> None:
        self._transport.abort()


@contextlib.asynccontextmanager
async def post_stream(
    server: Server, path: str, body: bytes, *, api_key: str | None = None
) -> AsyncGenerator[EventStream, None]:
    """Connect and send; the connection is closed at the end. Raises OSError, TimeoutError."""
    context = ssl.create_default_context() if server.tls else None
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        _, stream = await asyncio.get_running_loop().create_connection(
            EventStream, server.host, server.port, ssl=context
        )
    try:
        stream.send(_request(server, path, body, api_key))
        yield stream
    finally:
        stream.close()


def _request(server: Server, path: str, body: bytes, api_key: str | None) -> bytes:
    lines = [
        f"POST {server.path}{path} HTTP/1.1",
        f"Host: {server.host}:{server.port}",
        "Content-Type: application/json",
        "Accept: text/event-stream",
        "Accept-Encoding: identity",
        "Connection: close",
        f"Content-Length: {len(body)}",
        *([f"Authorization: Bearer {api_key}"] if api_key else []),
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
