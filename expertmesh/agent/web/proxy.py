"""Let a browser reach what the guard lets through, and nothing else.

An HTTP proxy for one page: plain requests, and tunnels for TLS and WebSockets. Each connection is
resolved, checked and made here, so redirects, subresources and page scripts have no other way.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from expertmesh.agent.web.guard import Guard, NoSuchHostError, RefusedError
from expertmesh.agent.web.proxy_heads import (
    MAX_HEAD_BYTES,
    BadHeadError,
    Tunnel,
    closing_answer,
    read_request,
)
from expertmesh.agent.web.urls import BadUrlError

REFUSED_WORD = "refused: "
"""How the text begins that a browser shows instead of a refused page."""
_PIECE_BYTES = 64 << 10
_MAX_NOTED = 20
_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, kw_only=True)
class ProxyLimits:
    """What one page with all its parts may take."""

    total_bytes: int = 50 << 20
    """Both ways, over all connections."""
    upload_bytes: int = 1 << 20
    """To servers, over all connections."""
    connections: int = 64
    """At once; more wait."""
    connect_s: float = 5.0
    head_s: float = 15.0


@dataclass
class Traffic:
    """What went through a proxy."""

    refused: list[str] = field(default_factory=list)
    """Why, one text for each place; only the first few."""
    received_bytes: int = 0
    sent_bytes: int = 0
    over: bool = False
    """Whether a limit of bytes was reached, after which nothing went through."""

    def note(self, reason: str) -> None:
        if reason not in self.refused and len(self.refused) < _MAX_NOTED:
            self.refused.append(reason)


class CheckingProxy:
    """Serves one listening socket."""

    def __init__(self, guard: Guard, limits: ProxyLimits = ProxyLimits()):
        self._guard = guard
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.connections)
        self._tasks: set[asyncio.Task[None]] = set()
        self.traffic = Traffic()

    @asynccontextmanager
    async def serving(self, listener: socket.socket) -> AsyncIterator[None]:
        """Takes the socket over; closes it and every connection at the end."""
        server = await asyncio.start_server(self._accept, sock=listener, limit=MAX_HEAD_BYTES)
        try:
            yield
        finally:
            server.close()
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            async with self._slots:
                await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the browser sees a closed connection, as with any server that goes away
        except asyncio.CancelledError:
            pass  # the page is done; asyncio would log a cancelled handler as an error
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(self._limits.head_s):
            head = await reader.readuntil(_END_OF_HEAD)
        try:
            request = read_request(head)
            if self.traffic.over:
                raise RefusedError("the page takes too many bytes")
            if isinstance(request, Tunnel):
                server = await self._connect(request.host, request.port)
            else:
                server = await self._connect(request.url.host, request.url.port)
        except (RefusedError, BadHeadError, BadUrlError) as error:
            self.traffic.note(str(error))
            await _answer(writer, 403, f"{REFUSED_WORD}{error}")
            return
        except (NoSuchHostError, OSError, TimeoutError) as error:
            await _answer(writer, 502, str(error) or "the server does not answer")
            return
        from_server, to_server = server
        try:
            if isinstance(request, Tunnel):
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await self._tunnel(reader, writer, from_server, to_server)
            else:
                to_server.write(request.head)
                self.traffic.sent_bytes += len(request.head)
                await self._upload(reader, to_server, request.body_bytes)
                await self._answer_of(from_server, writer)
        finally:
            to_server.close()

    async def _connect(
        self, host: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """To the first checked address that can be reached. Raises OSError, TimeoutError too."""
        addresses = await self._guard.addresses(host, port)
        for address in addresses:
            try:
                async with asyncio.timeout(self._limits.connect_s):
                    return await asyncio.open_connection(address, port, limit=MAX_HEAD_BYTES)
            except (OSError, TimeoutError):
                if address == addresses[-1]:
                    raise
        raise AssertionError("a guard gives at least one address")

    async def _tunnel(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        """Until the server ends it, or the browser does."""
        up = asyncio.create_task(self._pass_on(reader, to_server, upload=True))
        down = asyncio.create_task(self._pass_on(from_server, writer, upload=False))
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if up.done() and not down.done():
                await down  # a half-closed connection still brings its answer
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _upload(
        self, reader: asyncio.StreamReader, to_server: asyncio.StreamWriter, num_bytes: int
    ) -> None:
        while num_bytes > 0:
            piece = await reader.read(min(num_bytes, _PIECE_BYTES))
            if not piece:
                raise asyncio.IncompleteReadError(b"", num_bytes)
            num_bytes -= len(piece)
            if not self._counted(len(piece), upload=True):
                raise OSError("too many bytes")
            to_server.write(piece)
            await to_server.drain()

    async def _answer_of(
        self, from_server: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """The server's answer without interim ones; the end of the connection ends it."""
        status = 100
        while 100 <= status < 200:
            async with asyncio.timeout(self._limits.head_s):
                head = await from_server.readuntil(_END_OF_HEAD)
            try:
                status, passed = closing_answer(head)
            except BadHeadError as error:
                await _answer(writer, 502, str(error))
                return
        writer.write(passed)
        self.traffic.received_bytes += len(head)
        await self._pass_on(from_server, writer, upload=False)

    async def _pass_on(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, upload: bool
    ) -> None:
        while piece := await source.read(_PIECE_BYTES):
            if not self._counted(len(piece), upload):
                target.transport.abort()
                return
            target.write(piece)
            await target.drain()
        with contextlib.suppress(OSError, RuntimeError):
            target.write_eof()

    def _counted(self, num_bytes: int, upload: bool) -> bool:
        """False from the moment on in which a limit is passed."""
        traffic = self.traffic
        if upload:
            traffic.sent_bytes += num_bytes
        else:
            traffic.received_bytes += num_bytes
        total = traffic.sent_bytes + traffic.received_bytes
        if traffic.sent_bytes > self._limits.upload_bytes or total > self._limits.total_bytes:
            if not traffic.over:
                traffic.note("the page takes too many bytes")
            traffic.over = True
        return not traffic.over


async def _answer(writer: asyncio.StreamWriter, status: int, text: str) -> None:
    """Readable as a page of its own, and to no other page's scripts or frames."""
    body = text.encode("utf-8", "replace")[:1000]
    head = (
        f"HTTP/1.1 {status} Refused\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n"
        "Cross-Origin-Resource-Policy: same-origin\r\nX-Frame-Options: DENY\r\n\r\n"
    )
    writer.write(head.encode("ascii") + body)
    await writer.drain()
