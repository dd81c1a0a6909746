"""Which limits, addresses and channel options does every service share?"""

import ipaddress
from dataclasses import dataclass

PROTOCOL_MAJOR = 1
PROTOCOL_MINOR = 1
"""Raised by each release that adds fields; `tests/support/frozen_protos` has the older ones."""

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""Largest message, sent or received. Prefill is split to stay below it."""

MESSAGE_OVERHEAD_BYTES = 64 * 1024
"""Room for everything in an Execute or Result that does not grow with its rows."""

MAX_GRAMMAR_BYTES = 512 * 1024
"""Largest text of a grammar; the gateway and the attention service both check it."""
GRAMMAR_TAKEN = ("expertmesh-grammar", "taken")
"""Initial metadata of a Generate whose grammar was taken: see Grammar in attention.proto."""


def max_rows_per_message(hidden_size: int, top_k: int) -> int:
    """Most rows N whose Execute and Result (float32, K pairs a row) stay below the limit."""
    row_bytes = 4 * hidden_size + 8 * top_k + 4
    return max(1, (MAX_MESSAGE_BYTES - MESSAGE_OVERHEAD_BYTES) // row_bytes)


_COMMON_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Hidden rows do not compress, and this rules out decompression bombs.
    ("grpc.default_compression_algorithm", 0),
    ("grpc.http2.max_frame_size", 4 * 1024 * 1024),
    ("grpc.http2.lookahead_bytes", 8 * 1024 * 1024),
    # Probing the bandwidth-delay product does not help on loopback and a LAN.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.enable_channelz", 0),
)

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *_COMMON_OPTIONS,
    ("grpc.so_reuseport", 0),  # a port in use is an error, not shared
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 500),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # TLS and the first HTTP/2 frame; gRPC's own limit is two minutes for each half-open connection.
    ("grpc.server_handshake_timeout_ms", 20_000),
    # Closes connections without calls; a channel in use reconnects by itself. There is no maximum
    # age: Execute, Join and Generate live for hours, and gRPC would cut them off.
    ("grpc.max_connection_idle_ms", 300_000),
)

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    *_COMMON_OPTIONS,
    ("grpc.keepalive_time_ms", 1_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Services are dialled at the address in the topology, never through an HTTP proxy.
    ("grpc.enable_http_proxy", 0),
)


def patience_options(limit_ms: int) -> tuple[tuple[str, int], ...]:
    """How long a keepalive ping may stay unanswered before the connection is given up."""
    return (
        ("grpc.keepalive_timeout_ms", limit_ms),
        # The limit that C-core enforces; its default is a minute.
        ("grpc.http2.ping_timeout_ms", limit_ms),
    )


POOL_PATIENCE_MS = 2_000
"""With the second between pings, a link to a pool that drops without RST is noticed within 3 s. A
false alarm only costs sending a call again."""
PATIENCE_MS = 10_000
"""Longer for other services: there, a false alarm on starved cores costs whole streams."""

TARGET_SCHEMES = (
    "dns",
    "google-c2p",
    "ipv4",
    "ipv6",
    "unix",
    "unix-abstract",
    "vsock",
    "xds",
)
"""With one of these names, gRPC reads NAME:PORT as another kind of target, like a socket file."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """HOST:PORT; IPv6 hosts in brackets."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, field: str = "address") -> "Address":
        """Read HOST:PORT. Raises ValueError naming `field`."""
        host, separator, port = text.strip().rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        is_host = host.isprintable() and not {*"[]/ "} & {*host}
        digits = port.isascii() and port.isdecimal() and len(port) <= 5
        if not separator or not host or not is_host or not digits or int(port) > 65535:
            raise ValueError(f"{field}: expected HOST:PORT with a port of 0 to 65535, got {text!r}")
        if host.lower() in TARGET_SCHEMES:
            raise ValueError(f"{field}: {host} is a scheme of gRPC targets, not a host: {text!r}")
        return cls(host=host, port=int(port))

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a name, even one like 127.example, may resolve to anything
            return False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"
