"""A TCP proxy that misbehaves on request: the network between an attention service and a pool.

It listens before its pool does (the pool advertises it), runs on a thread and an event loop of
its own, and does what `Wire` says in each direction, from the next chunk on. Random choices
come from a seed.
"""

import asyncio
import random
import threading
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

CHUNK_BYTES = 65536
SLICE_S = 0.005
"""How often a slow reader reads, and a connection looks for its target."""


@dataclass(frozen=True, kw_only=True)
class Wire:
    """What becomes of the bytes of one direction. The default: nothing."""

    delay_s: float = 0.0  # delays chunks by this much; later ones are not delayed further
    silent: bool = False  # nothing arrives and no connection breaks; delivered when it ends
    flip_ratio: float = 0.0  # share of chunks with one bit flipped
    bytes_per_s: float = 0.0  # read slowly; 0: as fast as data comes
    cut: bool = False  # half of the next chunk, then reset
    half_close: bool = False  # close this direction, keep the other


CLEAN = Wire()
SILENT = Wire(silent=True)


@dataclass(slots=True, eq=False)
class _Line:
    """One direction of one connection: chunks on their way, oldest first."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    chunks: deque[tuple[float, bytes]] = field(default_factory=deque)  # (due_s, bytes)
    ended: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)


class FaultProxy:
    """Context manager. `up` is towards the pool, `down` towards attention; set them any time."""

    def __init__(self, target: str = "", *, seed: int = 0):
        """`target`: HOST:PORT; may be set later, connections wait for it."""
        self.target = target
        self._up = self._down = CLEAN
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._connections: set[asyncio.Task[None]] = set()
        self._lines: set[_Line] = set()
        self.accepted = 0
        self.flipped = 0

    def set(self, *, up: Wire = CLEAN, down: Wire = CLEAN) -> None:
        self._up, self._down = up, down
        self._loop.call_soon_threadsafe(self._tell_lines)

    def heal(self) -> None:
        self.set()

    def reset_connections(self) -> None:
        """End every connection with RST."""
        self._do(self._reset())

    def __enter__(self) -> "FaultProxy":
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def _tell_lines(self) -> None:
        for line in self._lines:
            line.news.set()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    async def _reset(self) -> None:
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _close(self) -> None:
        self._server.close()
        await self._reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.accepted += 1
        writers, lines = [writer], set[_Line]()
        try:
            while not self.target:
                await asyncio.sleep(SLICE_S)
            host, _, port = self.target.rpartition(":")
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            writers.append(far_writer)
            up, down = _Line(reader, far_writer), _Line(far_reader, writer)
            lines = {up, down}
            self._lines |= lines
            jobs = [
                job
                for line in (up, down)
                for job in (self._take(line, line is up), self._give(line, line is up))
            ]
            async with asyncio.TaskGroup() as group:
                for one in jobs:
                    group.create_task(one)
        except* (OSError, asyncio.CancelledError):
            pass  # either end is gone, or a reset was requested: pass it on to the other end
        finally:
            self._connections.discard(task)
            self._lines -= lines
            for one in writers:
                one.transport.abort()

    def _wire(self, is_up: bool) -> Wire:
        return self._up if is_up else self._down

    async def _take(self, line: _Line, is_up: bool) -> None:
        while True:
            wire = self._wire(is_up)
            if wire.bytes_per_s:
                size = max(1, int(wire.bytes_per_s * SLICE_S))
                await asyncio.sleep(SLICE_S)
            else:
                size = CHUNK_BYTES
            chunk = await line.reader.read(size)
            line.news.set()
            if not chunk:
                line.ended = True
                return
            line.chunks.append((time.monotonic() + self._wire(is_up).delay_s, chunk))

    async def _give(self, line: _Line, is_up: bool) -> None:
        closed = False
        while True:
            wire = self._wire(is_up)
            if (wire.half_close or (line.ended and not line.chunks)) and not closed:
                line.writer.write_eof()
                closed = True
            if closed and line.ended:
                return
            if closed or wire.silent or not line.chunks:
                line.news.clear()
                await line.news.wait()
                continue
            wait_s = line.chunks[0][0] - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
                continue
            chunk = self._damaged(line.chunks.popleft()[1], wire)
            if wire.cut:
                line.writer.write(chunk[: len(chunk) // 2])
                raise ConnectionResetError("cut")
            line.writer.write(chunk)
            await line.writer.drain()

    def _damaged(self, chunk: bytes, wire: Wire) -> bytes:
        if not wire.flip_ratio or self._random.random() >= wire.flip_ratio:
            return chunk
        damaged = bytearray(chunk)
        damaged[self._random.randrange(len(damaged))] ^= 1 << self._random.randrange(8)
        self.flipped += 1
        return bytes(damaged)
