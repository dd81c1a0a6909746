"""Why does nobody answer at an address? Nobody listens there, or somebody who wants TLS, or none."""

import socket

from rpc.config import Address

_CONNECT_S = 2.0


def why_unanswered(address: str, what: str, *, with_tls: bool) -> str:
    """One line for people about a gRPC call that found no connection to `what` (a router).

    Whether somebody listens is tried, not read from gRPC's wording.
    """
    parsed = Address.parse(address, "address")
    try:
        socket.create_connection((parsed.host, parsed.port), _CONNECT_S).close()
    except OSError as error:
        return f"no {what} answers at {address} ({error.strerror or error})"
    if with_tls:
        return (
            f"no {what} answers at {address}, although somebody listens there: without TLS, with "
            "certificates of another --tls-ca, or no such service"
        )
    return (
        f"no {what} answers at {address} without TLS, although somebody listens there: where a mesh "
        "has certificates give --tls-ca, --tls-cert and --tls-key (role cli)"
    )
