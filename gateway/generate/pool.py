"""Which attention service takes the next request?

Addresses come from flags or from the router's topology; each replica is asked for its status
every second. Of those that are ready and have room in their queue, a request goes to the one with
the least `cost`: the prompt's tokens that it probably has not cached, plus its load. One with much
more load than the others is not considered, whatever its cache holds. When all queues are full, the
request is refused here, before anything is sent. Streams on a service that is stopping or silent
move to another one.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence, Set
from functools import partial

from gateway.errors import not_ready, overloaded
from gateway.generate.replica import Replica
from protos import attention_pb2
from rpc.channel import Access
from rpc.config import Address
from rpc.logs import printable, quoted
from rpc.loop_failures import LoopFailures

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 1.0

SEQUENCE_TOKENS = 64
"""A sequence that runs on a replica counts as much as this many tokens to compute there."""
SESSION_TOKENS = 8 * SEQUENCE_TOKENS
"""The replica of a conversation counts as if it had so many tokens of the prompt in its cache: it
may, through another gateway."""
MORE_LOADED = 8
"""A replica with more than twice the least load plus this is not considered."""


def cost(num_uncached_tokens: int, load: int) -> int:
    """Of a request on a replica, in tokens: those of its prompt to compute, and the load."""
    return num_uncached_tokens + SEQUENCE_TOKENS * load


def _affinity(session: str, address: str) -> bytes:
    """Rendezvous hashing: a replica that comes or goes moves only its own sessions."""
    return hashlib.blake2b(f"{address}\0{session}".encode(errors="replace")).digest()


class AttentionPool:
    """All attention services this gateway knows."""

    def __init__(
        self,
        addresses: Callable[[], Iterable[str]],
        *,
        vocab_size: int,
        tls: Access | None,
        poll_interval_s: float = POLL_INTERVAL_S,
        count_migration: Callable[[str], None] = lambda reason: None,
    ):
        """`addresses` is called before each round; replicas no longer in it are closed.

        `count_migration` is called with the reason of each stream that moves.
        """
        self.count_migration = count_migration
        self._addresses = addresses
        self._vocab_size = vocab_size
        self._tls = tls
        self._poll_interval_s = poll_interval_s
        self._replicas: dict[str, Replica] = {}
        self._pollers: dict[str, asyncio.Task[None]] = {}
        self._unusable: set[str] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._last_ready_s = time.monotonic()

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

    def adopt(self, replica: Replica) -> None:
        """Send requests to a replica that the caller made and keeps up to date; nobody polls it."""
        self._replicas[replica.address] = replica

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

    def pick(
        self,
        num_prompt_tokens: int = 0,
        excluded: Set[str] = frozenset(),
        keys: Sequence[int] = (),
        *,
        client: str = "",
        session: str = "",
    ) -> Replica:
        """The ready replica with room in its queue where such a prompt costs least.

        `keys` are the prompt's `prompt_keys`: it will be in the picked one's cache. Requests of one
        `session` prefer one replica, the same for every gateway.

        Raises RequestError with the reason when none is ready, or when their queues are full or
        this client has its share of them.
        """
        ready = [r for r in self._replicas.values() if r.ready and r.address not in excluded]
        if not ready:
            # What has been down for long takes long to come back.
            down_s = time.monotonic() - self._last_ready_s
            raise not_ready(self._public_reason(), down_s)
        candidates = [replica for replica in ready if replica.has_room(num_prompt_tokens, client)]
        if not candidates:
            raise overloaded(
                "too many requests or prompt tokens are waiting already",
                min(replica.drain_s for replica in ready),
            )
        most = 2 * min(replica.load for replica in candidates) + MORE_LOADED

        home = max((r.address for r in ready), key=partial(_affinity, session)) if session else ""

        def rank(replica: Replica) -> tuple[int, int, str]:
            uncached = num_prompt_tokens - replica.prefixes.num_tokens(keys)
            uncached -= SESSION_TOKENS * (replica.address == home)
            return cost(uncached, replica.load), replica.load, replica.address

        picked = min((one for one in candidates if one.load <= most), key=rank)
        picked.prefixes.remember(keys)
        return picked

    def has_other(self, excluded: Set[str]) -> bool:
        """Whether a ready replica outside `excluded` exists."""
        return any(r.ready and r.address not in excluded for r in self._replicas.values())

    def max_model_len(self) -> int | None:
        """Tokens of prompt plus output that every replica takes; None before the first status."""
        lengths = [r.status.max_model_len for r in self._replicas.values() if r.status]
        return min(lengths) if lengths else None

    def fingerprint(self) -> str:
        """Names the weights in answers, beginning with fp_ or random-; empty: not known."""
        ids = (r.status.checkpoint_id for r in self._replicas.values() if r.status)
        checkpoint_id = next(filter(None, ids), "")
        if not checkpoint_id:
            return ""
        kind, _, digest = checkpoint_id.rpartition("-")
        return f"{kind}-{digest[:12]}" if kind else f"fp_{digest[:12]}"

    def default_stop_ids(self) -> frozenset[int]:
        """Ids at which the services stop by themselves."""
        statuses = [r.status for r in self._replicas.values() if r.status]
        return frozenset(i for status in statuses for i in status.default_stop_token_ids)

    def _public_reason(self) -> str:
        """Why none is ready, for clients: without addresses."""
        reported = (
            r.not_ready_reason
            for r in self._replicas.values()
            if r.status and r.not_ready_reason == r.status.not_ready_reason
        )
        return min(filter(None, reported), default="no attention service is available")

    async def _run(self) -> None:
        failures = LoopFailures(log, "cannot follow the attention services")
        while True:
            with failures:
                self._sync()
            await asyncio.sleep(min(self._poll_interval_s, 0.25))

    def _sync(self) -> None:
        wanted = set(self._addresses())
        self._unusable &= wanted
        for address in sorted(wanted - set(self._replicas)):
            self._follow(address)
        for address in set(self._replicas) - wanted:
            self._pollers.pop(address).cancel()
            self._retire(self._replicas.pop(address))

    def _follow(self, address: str) -> None:
        """One that cannot be dialled does not affect others; it is retried, and logged once."""
        try:
            Address.parse(address)  # gRPC would take Unix sockets and xDS, too
            replica = Replica(address, self._tls)
        except Exception as error:  # gRPC documents no type for a bad address
            if address not in self._unusable:
                log.error("attention %s cannot be used: %s", quoted(address), printable(str(error)))
            self._unusable.add(address)
            return
        self._unusable.discard(address)
        self._replicas[address] = replica
        self._pollers[address] = asyncio.create_task(self._poll_forever(replica))

    async def _poll_forever(self, replica: Replica) -> None:
        failures = LoopFailures(
            log,
            f"attention {replica.address} cannot be polled",
            # Otherwise it would keep its last state, perhaps ready.
            on_failure=lambda error: replica.mark_down("it cannot be polled", forget=False),
        )
        while True:
            with failures:
                await replica.poll(self._why_unusable)
                if replica.ready:
                    self._last_ready_s = time.monotonic()
                elif replica.better_left and self.has_other({replica.address}):
                    replica.send_away()
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
