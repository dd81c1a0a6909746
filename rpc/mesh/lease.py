"""How does a pool or attention service stay a member of the mesh?

`Lease` keeps one Join stream open from its own thread, so that a service whose
event loop is busy does not count as dead. It reconnects by itself; only a refusal
(another checkpoint, a newer incarnation, ...) is final.
"""

import logging
import random
import secrets
import threading
from collections.abc import Callable, Iterator

import grpc

from protos import router_pb2, router_pb2_grpc
from rpc.channel import Access, check_files, open_sync_channel

log = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 1.0
STOP_TIMEOUT_S = 2.0
DEFAULT_LEASE_S = 3.0
"""Until the router's Welcome says otherwise."""

FINAL_REFUSALS = (
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
)


def backoff_s(failures: int) -> float:
    """Seconds to wait after the n-th failure in a row: 0.1 doubling to 1, with jitter."""
    return min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(failures, 10)) * random.uniform(0.75, 1.25)


class Lease:
    """A membership that renews itself. Its callbacks run on the lease's own threads."""

    def __init__(
        self,
        router: str,
        tls: Access | None,
        register: router_pb2.Register,
        status: Callable[[], router_pb2.MemberStatus],
        on_assignment: Callable[[router_pb2.Assignment], None],
        on_refused: Callable[[str], object],
    ):
        """`status` is called at least every third of the lease and after each `poke`.

        `on_assignment` gets each assignment (the newest one counts). `on_refused` gets
        the router's message when a refusal is final; the lease then ends. Both must
        return quickly: hand over to another loop or thread.
        """
        self._router = router
        self._tls = tls
        self._register = router_pb2.Register()
        self._register.CopyFrom(register)
        self._register.process_key = secrets.token_bytes(16)  # identifies our next stream as ours
        self._status = status
        self._on_assignment = on_assignment
        self._on_refused = on_refused
        self._lease_s = DEFAULT_LEASE_S
        self._stopping = threading.Event()
        self._goodbye = True
        self.joined = False  # whether the router has accepted the current stream
        self._wake = threading.Condition()
        self._poked = False
        self._call: grpc.Call | None = None
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def start(self) -> None:
        """Begin to join in the background. Raises ValueError for a bad certificate file."""
        check_files(self._tls)
        self._thread.start()

    def poke(self) -> None:
        """Send a status now; pokes in quick succession become one."""
        with self._wake:
            self._poked = True
            self._wake.notify_all()

    def stop(self, *, goodbye: bool = True) -> None:
        """Send Leave, or without `goodbye` just end the stream; ends the thread within 2 s."""
        self._goodbye = goodbye
        self._stopping.set()
        self.poke()
        if self._thread.ident is None or self._thread is threading.current_thread():
            return
        self._thread.join(STOP_TIMEOUT_S / 2)
        if self._thread.is_alive():
            call = self._call
            if call is not None:
                call.cancel()
            self._thread.join(STOP_TIMEOUT_S / 2)

    def _run(self) -> None:
        failures, lost = 0, False
        while not self._stopping.is_set():
            # A channel for each stream: a new one is made with the certificate of that time.
            with open_sync_channel(self._router, tls=self._tls, server_role="router") as channel:
                error = self._follow(router_pb2_grpc.RouterStub(channel))
            was_joined, self.joined = self.joined, False
            if self._stopping.is_set():
                break
            if error.code() in FINAL_REFUSALS:
                log.error("router %s refused this member: %s", self._router, error.details())
                self._on_refused(error.details() or str(error.code()))
                break
            if was_joined or not lost:
                log.warning(
                    "no lease from router %s, still trying: %s: %s",
                    self._router,
                    error.code().name if error.code() else "ended",
                    error.details(),
                )
            failures, lost = (0 if was_joined else failures + 1), True
            self._stopping.wait(backoff_s(failures))

    def _follow(self, stub: router_pb2_grpc.RouterStub) -> "grpc.RpcError":
        """Join and follow the stream to its end; returns the error that it ended with."""
        ended = threading.Event()
        call = stub.Join(self._frames(ended))
        self._call = call
        try:
            for response in call:
                kind = response.WhichOneof("frame")
                if kind == "welcome":
                    self._welcomed(response.welcome)
                elif kind == "assignment":
                    self._on_assignment(response.assignment)
        except grpc.RpcError:
            pass  # it is the call itself
        finally:
            ended.set()
            call.cancel()
            self._call = None
            with self._wake:
                self._wake.notify_all()
        return call

    def _welcomed(self, welcome: router_pb2.Welcome) -> None:
        with self._wake:
            self._lease_s = max(0.05, welcome.lease_ms / 1000)
            self._wake.notify_all()
        self.joined = True
        log.info(
            "joined router %s as %s, seen as %s",
            self._router,
            self._register.member_id,
            welcome.seen_address,
        )

    def _frames(self, ended: threading.Event) -> Iterator[router_pb2.JoinRequest]:
        """Register, then statuses until the stream or the lease ends, then Leave."""
        yield router_pb2.JoinRequest(register=self._register)
        while not ended.is_set():
            if self._stopping.is_set():
                if self._goodbye:
                    yield router_pb2.JoinRequest(leave=router_pb2.Leave())
                return
            with self._wake:
                self._poked = False
            yield router_pb2.JoinRequest(status=self._status())
            with self._wake:
                # A little less than a third of the lease, which is the longest allowed.
                self._wake.wait_for(
                    lambda: self._poked or self._stopping.is_set() or ended.is_set(),
                    timeout=self._lease_s * 0.3,
                )
