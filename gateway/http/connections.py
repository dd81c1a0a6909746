"""Which connections may stay? Caps for all and for each address, and room for probes.

Connections without a request in progress give way to new ones: first those that never showed a
key, then idle ones. Where none can give way, a few new ones are still kept, for probes only.
"""

import enum
import ipaddress
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Protocol

from gateway.limits import Limits
from rpc.access.host_names import ip_of

log = logging.getLogger(__name__)

LOG_INTERVAL_S = 10.0


class Standing(enum.Enum):
    """How strong the claim of a connection to its place is."""

    STRANGER = enum.auto()
    """No accepted key yet: idle, sending, refused, or owing a body."""
    IDLE = enum.auto()
    """Its last request had an accepted key."""
    SERVED = enum.auto()
    """A request with an accepted key is being worked on."""


class Connection(Protocol):
    """What the table needs to know of a connection."""

    address_group: str

    @property
    def standing(self) -> Standing:
        """Now."""

    def give_way(self) -> None:
        """Close now: another connection needs the place."""


def address_group(host: str) -> str:
    """The address that a cap counts: an IPv6 client has a whole /64 to choose from."""
    address = ip_of(host)
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), 64), strict=False))
    return host


class ConnectionTable:
    """All connections of one server, those of each address in the order of their last answer."""

    def __init__(
        self,
        limits: Limits,
        *,
        on_closed: Callable[[], None] = lambda: None,
        on_refused: Callable[[], None] = lambda: None,
    ):
        """`on_closed` is called for each connection that had to give way, `on_refused` for each
        request whose connection has no place."""
        self.limits = limits
        self._on_closed = on_closed
        self._on_refused = on_refused
        self._of_address: defaultdict[str, dict[Connection, None]] = defaultdict(dict)
        self._probes: dict[Connection, None] = {}
        self._num_regular = 0
        self._closed = self._refused = 0
        self._logged_at_s = -LOG_INTERVAL_S

    @property
    def open(self) -> int:
        """Connections that hold a place."""
        return self._num_regular + len(self._probes)

    def admit(self, connection: Connection) -> bool:
        """Give it a place. False: one on which only probes are answered."""
        if self._make_room(connection.address_group):
            self._add(connection)
            return True
        if len(self._probes) >= self.limits.probe_connections:
            oldest = next(iter(self._probes))
            del self._probes[oldest]
            oldest.give_way()
        self._probes[connection] = None
        return False

    def promote(self, connection: Connection) -> bool:
        """Whether the connection of a new request has a regular place, or gets one now."""
        if connection not in self._probes:
            return True
        if not self._make_room(connection.address_group):
            self._refused += 1
            self._on_refused()
            self._report(connection.address_group)
            return False
        del self._probes[connection]
        self._add(connection)
        return True

    def answered(self, connection: Connection) -> None:
        """It was used just now: others give way before it."""
        connections = self._of_address[connection.address_group]
        if connection in connections:
            del connections[connection]
            connections[connection] = None

    def remove(self, connection: Connection) -> None:
        """It has ended, whether or not it gave way before."""
        self._probes.pop(connection, None)
        connections = self._of_address[connection.address_group]
        if connection in connections:
            del connections[connection]
            self._num_regular -= 1
        if not connections:
            del self._of_address[connection.address_group]

    def _add(self, connection: Connection) -> None:
        self._of_address[connection.address_group][connection] = None
        self._num_regular += 1

    def _make_room(self, group: str) -> bool:
        if len(self._of_address.get(group, ())) >= self.limits.max_connections_per_address:
            return self._make_way([group])
        if self._num_regular < self.limits.max_connections:
            return True
        # The address that holds the most loses first.
        return self._make_way(
            sorted(self._of_address, key=lambda name: len(self._of_address[name]), reverse=True)
        )

    def _make_way(self, groups: list[str]) -> bool:
        for standing in (Standing.STRANGER, Standing.IDLE):
            for group in groups:
                for connection in self._of_address[group]:
                    if connection.standing is standing:
                        self.remove(connection)
                        connection.give_way()
                        self._closed += 1
                        self._on_closed()
                        self._report(group)
                        return True
        return False

    def _report(self, group: str) -> None:
        """One line now and then, however many connections come."""
        now_s = time.monotonic()
        if now_s - self._logged_at_s < LOG_INTERVAL_S:
            return
        self._logged_at_s = now_s
        log.warning(
            "connections are at their cap (%d open, at most %d, %d from one address; the last is "
            "from %s): since the last such line %d unused ones were closed and %d requests refused",
            self.open,
            self.limits.max_connections,
            self.limits.max_connections_per_address,
            group,
            self._closed,
            self._refused,
        )
        self._closed = self._refused = 0
