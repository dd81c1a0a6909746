"""How does a connection live? uvicorn's h11 protocol with deadlines, and an orderly end.

uvicorn limits neither the time for a header or body nor a client that does not read. It also closes
with bytes unread: the kernel then resets the connection, and many clients miss the answer.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.errors import Kind, RequestError
from gateway.http.auth import ANONYMOUS, PUBLIC_PATHS
from gateway.http.connections import ConnectionTable, Standing, address_group
from gateway.http.dialect import ErrorShape
from gateway.http.parser import CheckedConnection

TOO_MANY = "too many connections"
_REASONS = {
    408: "the body came in too many tiny chunks",
    431: "the header is too large",
    503: TOO_MANY,
    505: "only HTTP/1.0 and HTTP/1.1 are spoken here",
}


class _Transport:
    """The connection's transport, but `close` is the protocol's."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]):
        self._transport = transport
        self.close = close
        self.lingers = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self.lingers or self._transport.is_closing()

    def close_now(self) -> None:
        """Without waiting for the client, but what was written is sent."""
        self._transport.close()


class GatewayProtocol(H11Protocol):
    """One connection with its timers."""

    transport: Any  # asyncio's, in a `_Transport`

    def __init__(self, table: ConnectionTable, errors: ErrorShape, **uvicorn_arguments: Any):
        super().__init__(**uvicorn_arguments)
        self._errors = errors
        self._table = table
        self._limits = table.limits
        self.conn: CheckedConnection = CheckedConnection(table.limits, self._admit)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._watched_state: Any = None
        self._body_began_s = 0.0
        self._last_input_s = 0.0
        self._lingered_bytes = 0
        self._for_probes = False
        self._showed_key = False
        self.address_group = ""

    @property
    def standing(self) -> Standing:
        """Whether it may be closed in favour of another."""
        if self.transport.is_closing():
            return Standing.STRANGER
        if self._key_id is not None and not self.cycle.response_complete:
            return Standing.SERVED
        return Standing.IDLE if self._showed_key else Standing.STRANGER

    @property
    def _key_id(self) -> str | None:
        """The key of the newest request; None before it was checked, and when it was refused."""
        return self.scope["state"].get("key_id") if self.scope is not None else None

    def give_way(self) -> None:
        """Make room for another connection."""
        if self.transport.is_closing() or self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close_now()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Transport(transport, self._close))  # type: ignore[arg-type]
        self.address_group = address_group(self.client[0] if self.client else "")
        self._for_probes = not self._table.admit(self)
        self._watch_input()

    def connection_lost(self, exc: Exception | None) -> None:
        self._table.remove(self)
        for timer in self._timers.values():
            timer.cancel()
        self._unset_keepalive_if_required()
        self.transport.lingers = True  # nothing is left to close
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.lingers:
            self._lingered_bytes += len(data)
            if self._lingered_bytes > self._limits.linger_bytes:
                self._stop_lingering()
            return
        if self.transport.is_closing():
            return
        self._last_input_s = self.loop.time()
        super().data_received(data)
        self._watch_input()

    def on_response_complete(self) -> None:
        self._showed_key = self._key_id not in (None, ANONYMOUS)
        super().on_response_complete()  # also begins with a waiting request
        self._table.answered(self)
        if self.transport.is_closing():
            return
        self._watch_input()
        if self.cycle.response_complete and self.conn.their_state is h11.SEND_BODY:
            # Answered before its body came: the rest may still arrive, for a moment.
            self._after("input", self._limits.linger_s, self._close)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._after("write", self._limits.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel("write")

    def shutdown(self) -> None:
        if self.transport.lingers:
            self.transport.close_now()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer to what h11 refuses; called while the exception is handled."""
        hint = getattr(sys.exception(), "error_status_hint", 400)
        self._refuse(hint, _REASONS.get(hint, "the request is not valid HTTP"))

    def _unsupported_upgrade_warning(self) -> None:
        """Answered as HTTP/1.1, as the standard allows; nothing to log."""

    def _admit(self, request: h11.Request) -> None:
        """A connection beyond the caps answers only probes until it gets a regular place."""
        if self._for_probes and request.target.partition(b"?")[0].decode() not in PUBLIC_PATHS:
            if not self._table.promote(self):
                raise h11.RemoteProtocolError(TOO_MANY, error_status_hint=503)
            self._for_probes = False

    def _watch_input(self) -> None:
        """One timer for the header or the body that is being received."""
        state = self.conn.their_state
        if state is self._watched_state or self.transport.is_closing():
            return
        self._watched_state = state
        self._cancel("input")
        if state is h11.IDLE:
            limits = self._limits
            wait_s = limits.probe_header_s if self._for_probes else limits.header_timeout_s
            self._after("input", wait_s, self._input_late)
        elif state is h11.SEND_BODY:
            self._body_began_s = self.loop.time()
            self._check_pace()

    def _check_pace(self) -> None:
        """Refuse a body that pauses or drips; look again when the next byte is due."""
        limits = self._limits
        allowed_s = limits.body_idle_s + self.conn.body_bytes / limits.body_bytes_per_s
        due_s = min(
            self._last_input_s + limits.body_idle_s,
            self._body_began_s + min(allowed_s, limits.body_total_s),
        )
        if self.loop.time() >= due_s:
            self._input_late()
        else:
            self._after("input", due_s - self.loop.time(), self._check_pace)

    def _input_late(self) -> None:
        if self._for_probes:
            self._refuse(503, TOO_MANY)
        elif self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self.transport.close()  # nothing was asked: nothing to answer
        else:
            self._refuse(408, "the request took too long to arrive")

    def _refuse(self, status: int, message: str) -> None:
        """Answer without the application, if an answer can still be sent, and close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            what = message[0].upper() + message[1:]
            error = RequestError(Kind.INVALID_REQUEST, what, reason="bad_http")
            body = self._errors.body(error, None)
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            response = h11.Response(status_code=status, headers=headers)
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _close(self) -> None:
        """Close; a client that may still be sending gets a moment to read the answer."""
        if self.transport.is_closing():
            return
        for name in tuple(self._timers):
            self._cancel(name)
        # A client that does not read must not keep a closed connection alive.
        self._after("close", self._limits.write_timeout_s, self.transport.abort)
        may_send = self.conn.their_state in (h11.SEND_BODY, h11.ERROR)
        if may_send or self.conn.trailing_data[0]:
            self.transport.write_eof()
            self.transport.lingers = True
            self.transport.resume_reading()
            self._after("linger", self._limits.linger_s, self._stop_lingering)
        else:
            self.transport.close_now()

    def _stop_lingering(self) -> None:
        self._cancel("linger")
        self.transport.close_now()

    def _after(self, name: str, delay_s: float, callback: Callable[[], None]) -> None:
        """Replaces the timer of this name; all end with the connection."""
        self._cancel(name)
        self._timers[name] = self.loop.call_later(delay_s, callback)

    def _cancel(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
