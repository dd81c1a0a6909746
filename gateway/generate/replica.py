"""What do we know of one attention service: is it ready, how busy, and may one more wait there?

It reports its load about once a second. Between two reports we add what changed on our own side
since the last one was asked for: streams opened, and streams whose first token came.
"""

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import grpc
import grpc.aio

from gateway.errors import not_ready
from gateway.generate.drain import Drain
from gateway.generate.prefix_guess import PrefixGuess
from gateway.generate.stream_state import StreamLost
from protos import attention_pb2, attention_pb2_grpc
from rpc.access.tls import TlsFiles
from rpc.channel import Access, open_channel
from rpc.fair_shares import may_wait
from rpc.logs import cut, printable

log = logging.getLogger(__name__)

POLL_TIMEOUT_S = 2.0
LATE_POLLS = 3
"""After this many late answers in a row a service counts as silent. A dead or stopped one fails at
once, or within 3 s by its connection; one that is short of CPU time is late, but works."""


@dataclass
class StreamCounts:
    """Numbers of sequences, and prompt tokens of those without a first token."""

    open: int = 0
    unstarted: int = 0
    unstarted_tokens: int = 0
    unstarted_of: Counter[str] = field(default_factory=Counter)
    """By client; "" for all that have no name."""


class Replica:
    """One attention service: its channel, its last status, and what we have running there."""

    def __init__(self, address: str, tls: Access | None):
        self.address = address
        self.status: attention_pb2.GetStatusResponse | None = None
        self.not_ready_reason: str | None = "its status is not known yet"
        self._tls = tls
        self._dial()
        self._reported = attention_pb2.GetStatusResponse()
        self._ours = StreamCounts()
        self._ours_at_poll = StreamCounts()
        self._queue = Drain()
        self._late_polls = 0
        self._awaits_since_s: float | None = None  # when its step began to wait for experts
        self.prefixes = PrefixGuess()
        self._movable: set[grpc.aio.Call] = set()

    def _dial(self) -> None:
        self._changes = self._file_changes()
        self._channel = open_channel(self.address, tls=self._tls, server_role="attention")
        self.stub = attention_pb2_grpc.AttentionStub(self._channel)

    def _file_changes(self) -> int:
        """How often our certificate has been replaced."""
        if not isinstance(self._tls, TlsFiles):
            return 0
        self._tls.pems.get()
        return self._tls.pems.changes

    @property
    def ready(self) -> bool:
        return self.not_ready_reason is None

    @property
    def busy(self) -> bool:
        return self._ours.open > 0

    @property
    def load(self) -> int:
        """Sequences there: as reported and changed since, or ours when those are more."""
        reported = self._reported.running_sequences + self._reported.waiting_sequences
        return max(reported + self._ours.open - self._ours_at_poll.open, self._ours.open)

    @property
    def default_timeout_s(self) -> float:
        """Its limit for requests that name none; 0: not known."""
        return self._reported.default_timeout_ms / 1e3

    def awaited_ms(self, since_s: float) -> int:
        """How long a stream that was cut off there, unreported, had waited for experts.

        `since_s`: when it last made progress.
        """
        if self._awaits_since_s is None:
            return 0
        return max(0, int((time.monotonic() - max(since_s, self._awaits_since_s)) * 1e3))

    @property
    def drain_s(self) -> float:
        """Time until our unstarted streams have started, at the recent rate."""
        return self._queue.wait_s(self._queue.inside)

    def has_room(self, num_prompt_tokens: int, client: str = "") -> bool:
        """Whether one more sequence of this client may wait there, by the limits it reported.

        A limit of 0 is not known. The attention service decides on the client's share of the queue,
        over all gateways; here it is refused by what this gateway alone has sent.
        """
        report, ours, then = self._reported, self._ours, self._ours_at_poll
        waiting = max(0, report.waiting_sequences + ours.unstarted - then.unstarted)
        own = min(waiting, ours.unstarted_of[client]) if client else 0
        most = report.max_waiting_sequences
        if most and not may_wait(own, waiting, most):
            return False
        if waiting == 0 or not report.max_waiting_prompt_tokens:
            return True  # an empty queue takes a prompt of any length
        tokens = report.waiting_prompt_tokens + ours.unstarted_tokens - then.unstarted_tokens
        return max(0, tokens) + num_prompt_tokens <= report.max_waiting_prompt_tokens

    @contextlib.contextmanager
    def lease(self, num_prompt_tokens: int, client: str = "") -> Iterator[Callable[[], None]]:
        """Count one stream for as long as it runs; call what is yielded when it has started."""
        ours, waits = self._ours, True
        ours.open += 1
        ours.unstarted += 1
        ours.unstarted_tokens += num_prompt_tokens
        ours.unstarted_of[client] += 1
        self._queue.enter()

        def leave_queue(served: bool = True) -> None:
            nonlocal waits
            if waits:
                waits = False
                ours.unstarted -= 1
                ours.unstarted_tokens -= num_prompt_tokens
                ours.unstarted_of[client] -= 1
                ours.unstarted_of += Counter()  # drops the clients at zero
                self._queue.leave(served=served)

        try:
            yield leave_queue
        finally:
            leave_queue(served=False)
            ours.open -= 1

    @contextlib.contextmanager
    def may_send_away(self, call: grpc.aio.Call, movable: bool) -> Iterator[None]:
        """While it runs, `send_away` may cancel this call: it can go on elsewhere."""
        if movable:
            self._movable.add(call)
        try:
            yield
        finally:
            self._movable.discard(call)

    def send_away(self) -> None:
        """Leave a service that is stopping or silent before it cuts the streams off."""
        for call in self._movable:
            call.cancel()
        self._movable.clear()

    @property
    def better_left(self) -> bool:
        """Whether it reported that it is stopping, or no longer answers."""
        return self._reported.draining or self._late_polls >= LATE_POLLS

    def why_sent_away(self) -> StreamLost:
        """What ends a stream that `send_away` cancelled."""
        if self._reported.draining:
            return StreamLost("draining", not_ready("the attention service is stopping"))
        return StreamLost("silent", not_ready("the attention service does not answer"))

    def mark_down(self, reason: str, *, forget: bool) -> None:
        """Not to be picked until a poll says otherwise; `forget`: its cache is lost, too."""
        if self.ready:
            log.warning("attention %s is not ready: %s", self.address, reason)
        self.not_ready_reason = reason
        if forget:
            self.prefixes.forget()

    async def poll(self, check: Callable[[attention_pb2.GetStatusResponse], str | None]) -> None:
        """Ask for the status once; `check` says why a ready replica cannot be used.

        A renewed certificate is used from here on; running streams keep their connection, which
        gRPC closes after the last of them.
        """
        if self._file_changes() != self._changes:
            self._dial()
        ours_before = replace(self._ours)
        reason: str | None
        try:
            status = await self.stub.GetStatus(
                attention_pb2.GetStatusRequest(), timeout=POLL_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            self._late_polls += 1
            is_late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            if is_late and self.ready and self._late_polls < LATE_POLLS:
                return
            reason = printable(cut(f"{error.code().name.lower()}: {error.details()}", 500))
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                self.prefixes.forget()
        else:
            self._late_polls = 0
            self.prefixes.set_capacity(status.kv_capacity_tokens)
            self.status = self._reported = status
            awaited_s = status.experts_awaited_ms / 1e3
            self._awaits_since_s = time.monotonic() - awaited_s if awaited_s else None
            self._ours_at_poll = ours_before
            reason = status.not_ready_reason or "not ready" if not status.ready else check(status)
        if reason != self.not_ready_reason:
            if reason is None:
                log.info("attention %s is ready", self.address)
            else:
                log.warning("attention %s is not ready: %s", self.address, reason)
        self.not_ready_reason = reason

    async def close(self) -> None:
        await self._channel.close()
