"""Which attention service takes the next request?

Addresses come from flags or from the router's topology; each replica is asked for its status
every second. Ready ones are picked by least load.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Set

import grpc.aio

from gateway.errors import not_ready
from protos import attention_pb2, attention_pb2_grpc
from rpc.channel import open_channel
from rpc.tls import TlsFiles

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 1.0
POLL_TIMEOUT_S = 2.0


class Replica:
    """One attention service: its channel, its last status, and what we have running there."""

    def __init__(self, address: str, tls: TlsFiles | None):
        self.address = address
        self.status: attention_pb2.GetStatusResponse | None = None
        self.not_ready_reason: str | None = "its status is not known yet"
        self._channel = open_channel(address, tls=tls, server_role="attention")
        self.stub = attention_pb2_grpc.AttentionStub(self._channel)
        self._in_flight = 0
        self._opened_since_poll = 0

    @property
    def ready(self) -> bool:
        return self.not_ready_reason is None

    @property
    def busy(self) -> bool:
        return self._in_flight > 0

    @property
    def load(self) -> int:
        """Sequences there: what it said, or what we know to be ours when that is more."""
        reported = 0
        if self.status is not None:
            reported = self.status.running_sequences + self.status.waiting_sequences
        return max(reported + self._opened_since_poll, self._in_flight)

    @contextlib.contextmanager
    def lease(self) -> Iterator[None]:
        """Count one stream of ours for as long as it runs."""
        self._in_flight += 1
        self._opened_since_poll += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    def mark_down(self, reason: str) -> None:
        """Not to be picked until a poll says otherwise."""
        self.not_ready_reason = reason

    async def poll(self, check: Callable[[attention_pb2.GetStatusResponse], str | None]) -> None:
        """Ask for the status once; `check` says why a ready replica cannot be used."""
        opened_before = self._opened_since_poll
        reason: str | None
        try:
            status = await self.stub.GetStatus(
                attention_pb2.GetStatusRequest(), timeout=POLL_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            reason = f"{error.code().name.lower()}: {error.details()}"
        else:
            self.status = status
            self._opened_since_poll -= opened_before
            reason = status.not_ready_reason or "not ready" if not status.ready else check(status)
        if reason != self.not_ready_reason:
            if reason is None:
                log.info("attention %s is ready", self.address)
            else:
                log.warning("attention %s is not ready: %s", self.address, reason)
        self.not_ready_reason = reason

    async def close(self) -> None:
        await self._channel.close()


class AttentionPool:
    """All attention services this gateway knows."""

    def __init__(
        self,
        addresses: Callable[[], Iterable[str]],
        *,
        vocab_size: int,
        tls: TlsFiles | None,
        poll_interval_s: float = POLL_INTERVAL_S,
    ):
        """`addresses` is asked before each round; replicas that left it are closed."""
        self._addresses = addresses
        self._vocab_size = vocab_size
        self._tls = tls
        self._poll_interval_s = poll_interval_s
        self._replicas: dict[str, Replica] = {}
        self._pollers: dict[str, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin polling in the background."""
        self._task = asyncio.create_task(self._run(), name="attention-pool")

    async def stop(self) -> None:
        tasks = [*self._pollers.values(), *self._closing]
        if self._task is not None:
            tasks.append(self._task)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for replica in self._replicas.values():
            await replica.close()
        self._replicas.clear()
        self._pollers.clear()

    @property
    def replicas(self) -> list[Replica]:
        return list(self._replicas.values())

    def readiness(self) -> tuple[bool, str]:
        """(ready, reason when not)."""
        if not self._replicas:
            return False, "no attention service is known"
        if any(replica.ready for replica in self._replicas.values()):
            return True, ""
        reasons = [f"{r.address}: {r.not_ready_reason}" for r in self._replicas.values()]
        return False, "no attention service is ready (" + "; ".join(reasons[:4]) + ")"

    def pick(self, excluded: Set[str] = frozenset()) -> Replica:
        """The least loaded ready replica. Raises ApiError 503 with the reason when there is none."""
        candidates = [
            replica
            for replica in self._replicas.values()
            if replica.ready and replica.address not in excluded
        ]
        if not candidates:
            raise not_ready(self._public_reason())
        return min(candidates, key=lambda replica: (replica.load, replica.address))

    def has_other(self, excluded: Set[str]) -> bool:
        """Whether a ready replica outside `excluded` exists."""
        return any(r.ready and r.address not in excluded for r in self._replicas.values())

    def max_model_len(self) -> int | None:
        """Tokens of prompt plus output every ready replica takes; None before one was heard."""
        lengths = [r.status.max_model_len for r in self._replicas.values() if r.status]
        return min(lengths) if lengths else None

    def default_stop_ids(self) -> frozenset[int]:
        """Ids at which the services stop by themselves."""
        statuses = [r.status for r in self._replicas.values() if r.status]
        return frozenset(i for status in statuses for i in status.default_stop_token_ids)

    def _public_reason(self) -> str:
        """For clients: why, without addresses."""
        reasons = {r.not_ready_reason for r in self._replicas.values() if r.not_ready_reason}
        reported = sorted(
            r.status.not_ready_reason
            for r in self._replicas.values()
            if r.status and not r.ready and r.status.not_ready_reason in reasons
        )
        return reported[0] if reported else "no attention service is available"

    async def _run(self) -> None:
        while True:
            try:
                await self._sync()
            except Exception:  # a bad address must not end the polling; it is logged
                log.exception("cannot follow the attention services")
            await asyncio.sleep(min(self._poll_interval_s, 0.25))

    async def _sync(self) -> None:
        wanted = set(self._addresses())
        for address in wanted - set(self._replicas):
            replica = Replica(address, self._tls)
            self._replicas[address] = replica
            self._pollers[address] = asyncio.create_task(self._poll_forever(replica))
        for address in set(self._replicas) - wanted:
            self._pollers.pop(address).cancel()
            self._retire(self._replicas.pop(address))

    async def _poll_forever(self, replica: Replica) -> None:
        while True:
            await replica.poll(self._why_unusable)
            await asyncio.sleep(self._poll_interval_s)

    def _why_unusable(self, status: attention_pb2.GetStatusResponse) -> str | None:
        if status.vocab_size != self._vocab_size:
            return (
                f"it serves a vocabulary of {status.vocab_size}, the gateway's --model has "
                f"{self._vocab_size}"
            )
        if status.max_model_len < 2:
            return f"it takes {status.max_model_len} tokens; at least 2 are needed"
        return None

    def _retire(self, replica: Replica) -> None:
        """Close once our streams there have ended; they are not cut by a topology change."""
        log.info("attention %s left", replica.address)
        task = asyncio.create_task(self._close_when_idle(replica))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close_when_idle(self, replica: Replica) -> None:
        while replica.busy:
            await asyncio.sleep(0.5)
        await replica.close()
