"""A site on 127.0.0.1 that answers byte by byte what a test wants."""

import asyncio
import gzip
import inspect
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from expertmesh.agent.web.guard import AllowedHost

Handler = Callable[[asyncio.StreamWriter], Awaitable[None]]
Answerer = Callable[[str], bytes]
"""Of the path with its query."""
Routes = Mapping[str, bytes | Handler | Answerer]


@dataclass
class Site:
    """Where it is, and what it was asked."""

    port: int
    heads: list[str] = field(default_factory=list)

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    @property
    def allowed(self) -> AllowedHost:
        return AllowedHost("127.0.0.1", self.port)

    @property
    def paths(self) -> list[str]:
        return [head.split(" ")[1] for head in self.heads]


def answer(
    body: bytes | str = b"", status: int = 200, content_type: str = "text/html", **fields: str
) -> bytes:
    """A whole answer; `content_encoding="gzip"` becomes that field."""
    data = body.encode() if isinstance(body, str) else body
    lines = [
        f"HTTP/1.1 {status} Status",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(data)}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def redirect(location: str, status: int = 302) -> bytes:
    return answer(status=status, location=location)


def bomb(num_bytes: int) -> bytes:
    return answer(gzip.compress(bytes(num_bytes)), content_encoding="gzip")


async def silence(writer: asyncio.StreamWriter) -> None:
    """No answer while the test lasts."""
    await asyncio.sleep(60)


async def drip(writer: asyncio.StreamWriter) -> None:
    """A body of which a byte comes now and then."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(1000):
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(0.02)


@asynccontextmanager
async def local_site(routes: Routes, tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    """Path without the query -> what it answers; 404 elsewhere."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            site.heads.append(head)
            route = routes.get(head.split(" ")[1].partition("?")[0], answer(b"none", 404))
            if inspect.iscoroutinefunction(route):
                await route(writer)
                return
            writer.write(route if isinstance(route, bytes) else route(head.split(" ")[1]))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    site = Site(server.sockets[0].getsockname()[1])
    try:
        yield site
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
