"""A peer that speaks an older minor: a gRPC proxy before one of today's services.

Every message is read with the older minor's descriptors: what they do not know is dropped, and
the rest is sent on. Methods of other packages (health) pass unchanged. Callers see a service of
that minor, and the service behind it sees such a caller.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from rpc.config import CHANNEL_OPTIONS, SERVER_OPTIONS
from tests.support.frozen_protos import Frozen

Result = TypeVar("Result")


class OldPeer(grpc.GenericRpcHandler):
    """One proxy; `target` may be set when its port is known."""

    def __init__(self, minor: Frozen):
        self._minor = minor
        self.target = ""
        self.address = ""
        self.methods: set[str] = set()
        self.num_bytes_dropped = 0

    async def serve(self) -> grpc.aio.Server:
        server = grpc.aio.server(options=SERVER_OPTIONS)
        server.add_generic_rpc_handlers((self,))
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        return server

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        method = details.method
        self.methods.add(method)

        async def forward(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            types = self._minor.types_of(method)
            up, down = types or (None, None)
            async with grpc.aio.insecure_channel(self.target, options=CHANNEL_OPTIONS) as channel:
                sent = self._spoken(up, requests)
                call = channel.stream_stream(method)(sent, timeout=context.time_remaining())
                try:
                    async for response in self._spoken(down, call):
                        yield response
                except grpc.aio.AioRpcError as error:
                    await context.abort(error.code(), error.details())
                finally:
                    call.cancel()

        return grpc.stream_stream_rpc_method_handler(forward)

    async def _spoken(
        self, kind: type[Message] | None, messages: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        async for data in messages:
            if kind is None:
                yield data
                continue
            old = self._minor.speak(kind, data)
            self.num_bytes_dropped += max(0, len(data) - len(old))
            yield old


class OldPeers:
    """Proxies on a loop in a thread of its own, for tests of real processes."""

    def __init__(self, minor: Frozen, count: int):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.peers = [OldPeer(minor) for _ in range(count)]
        self._servers = [self._run(peer.serve()) for peer in self.peers]

    def close(self) -> None:
        for server in self._servers:
            self._run(server.stop(0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)
