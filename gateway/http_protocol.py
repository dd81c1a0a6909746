"""What happens on a connection before there is a request? Timeouts and caps for uvicorn's h11.

uvicorn bounds neither the time of a header or body nor that of a client that does not read, and
h11 bounds a header only when it arrives in pieces. The exact h11 parser is the point of using it:
it refuses conflicting lengths, bare line feeds and control characters by itself.
"""

import asyncio
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.errors import ApiError
from gateway.limits import Limits


class CheckedConnection(h11.Connection):
    """h11 plus the checks that need the events: header size, one length only, tiny chunks."""

    def __init__(self, limits: Limits):
        super().__init__(h11.SERVER, max_incomplete_event_size=limits.header_bytes)
        self._limits = limits
        self._chunks = 0
        self.body_bytes = 0
        """Of the body that is being received."""

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Data):
            self._count_chunk(len(event.data))
        elif isinstance(event, h11.Request):
            self._chunks = self.body_bytes = 0
            self._check_header(event)
        return event

    def _check_header(self, request: h11.Request) -> None:
        size = len(request.target) + sum(len(n) + len(v) + 4 for n, v in request.headers)
        if size > self._limits.header_bytes:
            raise h11.RemoteProtocolError("header too large", error_status_hint=431)
        names = {name for name, _ in request.headers}
        if b"content-length" in names and b"transfer-encoding" in names:
            raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")

    def _count_chunk(self, size: int) -> None:
        self._chunks += 1
        self.body_bytes += size
        tiny = self.body_bytes < self._chunks * self._limits.tiny_chunk_bytes
        if tiny and self._chunks > self._limits.tiny_chunks:
            raise h11.RemoteProtocolError("body in tiny chunks", error_status_hint=408)


class ConnectionTable:
    """All connections of one server, idle ones oldest first."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.open = 0
        self.idle: dict[GatewayProtocol, None] = {}

    def make_room(self) -> bool:
        """Close the longest idle connection when the cap is reached; False if none is idle."""
        if self.open < self.limits.max_connections:
            return True
        oldest = next(iter(self.idle), None)
        if oldest is None:
            return False
        oldest.close_idle()
        return True


class GatewayProtocol(H11Protocol):
    """One connection with its timers."""

    def __init__(self, table: ConnectionTable, **uvicorn_arguments: Any):
        super().__init__(**uvicorn_arguments)
        self._table = table
        self._limits = table.limits
        self.conn: CheckedConnection = CheckedConnection(table.limits)
        self._input_timer: asyncio.TimerHandle | None = None
        self._watched_state: Any = None
        self._body_began_s = 0.0
        self._last_input_s = 0.0
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        has_room = self._table.make_room()
        self._table.open += 1
        if not has_room:
            self._refuse(503, "too many connections")
            return
        self._table.idle[self] = None
        self._watch_input()

    def connection_lost(self, exc: Exception | None) -> None:
        self._table.open -= 1
        self._table.idle.pop(self, None)
        for timer in (self._input_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def close_idle(self) -> None:
        """Make room for a newer connection."""
        self._table.idle.pop(self, None)
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._last_input_s = self.loop.time()
        super().data_received(data)
        self._watch_input()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            # A client that does not read must not keep a closed connection alive.
            self.loop.call_later(self._limits.write_timeout_s, self.transport.abort)
        else:
            self._watch_input()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(
                self._limits.write_timeout_s, self.transport.abort
            )

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer to what h11 refuses; called while the exception is handled."""
        hint = getattr(sys.exception(), "error_status_hint", 400)
        reasons = {431: "the header is too large", 408: "the body came in too many tiny chunks"}
        self._refuse(hint, reasons.get(hint, "the request is not valid HTTP"))

    def _unsupported_upgrade_warning(self) -> None:
        """Answered as HTTP/1.1, as the standard allows; nothing to log."""

    def _watch_input(self) -> None:
        """One timer for the header or the body that is being received."""
        state = self.conn.their_state
        if state is h11.IDLE:
            self._table.idle.setdefault(self)
        else:
            self._table.idle.pop(self, None)
        if state is self._watched_state:
            return
        self._watched_state = state
        if self._input_timer is not None:
            self._input_timer.cancel()
            self._input_timer = None
        if state is h11.IDLE:
            self._input_timer = self.loop.call_later(
                self._limits.header_timeout_s, self._input_late
            )
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
            self._input_timer = self.loop.call_at(due_s, self._check_pace)

    def _input_late(self) -> None:
        if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self.transport.close()  # nothing was asked: nothing to answer
        else:
            self._refuse(408, "the request took too long to arrive")

    def _refuse(self, status: int, message: str) -> None:
        """Answer below the application, if an answer can still be sent, and close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = ApiError(status, message[0].upper() + message[1:], code="bad_http").json()
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
        self.loop.call_later(self._limits.write_timeout_s, self.transport.abort)
