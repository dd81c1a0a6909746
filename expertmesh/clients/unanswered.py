"""Why does a service not answer at an address? Nothing listens there, or TLS does not match."""

import socket

from rpc.config import Address

_CONNECT_S = 2.0


def why_unanswered(address: str, what: str, *, with_tls: bool) -> str:
    """One line for people about a gRPC call that could not connect to `what` (say "router").

    Connects to find out whether anything listens there, instead of parsing gRPC's message.
    """
    parsed = Address.parse(address, "address")
    try:
        socket.create_connection((parsed.host, parsed.port), _CONNECT_S).close()
    except OSError as error:
        return f"no {what} answers at {address} ({error.strerror or error})"
    if with_tls:
        return (
            f"no {what} answers at {address}, although something listens there: it has no TLS, "
            "or a certificate from another --tls-ca, or is another service"
        )
    return (
        f"no {what} answers at {address} without TLS, although something listens there: if the "
        "mesh has certificates, give --tls-ca, --tls-cert and --tls-key (role cli)"
    )
