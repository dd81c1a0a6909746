"""Is the name in a Host header one that no stranger can own? Against DNS rebinding.

A web page may have its own name lead to an address in here, and then read what is served there; the
name it used stands in the Host header.
"""

import contextlib
import ipaddress
import socket
from collections.abc import Collection

PRIVATE_DOMAINS = (".local", ".internal", ".localhost", ".home.arpa", ".svc")
"""Nobody can register these in the public DNS."""


def name_of(host_header: str) -> str | None:
    """The host in HOST, HOST:PORT, [IPV6] or [IPV6]:PORT, in lower case; None for anything else."""
    name, _, port = host_header.strip().lower().partition("]:")
    if name.startswith("["):
        name = name[1:].removesuffix("]")
    else:
        name, _, port = name.partition(":")
    if (port and not (port.isascii() and port.isdecimal())) or not name:
        return None
    return name if not set(name) & set("/@?#\\[] \t") else None


def is_own_name(name: str, *, allowed: Collection[str] = ()) -> bool:
    """Whether a request for `name` may be answered. `allowed` adds names; '*' allows each."""
    if "*" in allowed or name in {entry.lower() for entry in allowed}:
        return True
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return True  # a page of that address, whose name nobody leads elsewhere
    name = name.removesuffix(".")
    return "." not in name or name.endswith(PRIVATE_DOMAINS) or name == socket.gethostname().lower()
