"""Is the name in a Host header one that no stranger can own? Against DNS rebinding.

A web page can make its own name resolve to an address of ours and then read what is served there;
the Host header still carries that name.
"""

import contextlib
import ipaddress
import socket
from collections.abc import Collection

PRIVATE_DOMAINS = (".local", ".internal", ".localhost", ".home.arpa", ".svc")
"""Nobody can register these in the public DNS."""


def normal(name: str) -> str:
    """As names are compared: in lower case, without the root's dot."""
    return name.lower().removesuffix(".")


def is_private(name: str) -> bool:
    """Whether no public DNS server answers for the name."""
    return normal(name).endswith(PRIVATE_DOMAINS)


def machine_names(hostname: str | None = None) -> frozenset[str]:
    """What this machine is called: in full, in short, and by multicast."""
    full = (hostname or socket.gethostname()).lower()
    short = full.partition(".")[0]
    return frozenset((full, short, f"{short}.local"))


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
        return True  # a page of that address: there is no name to redirect
    name = normal(name)
    return "." not in name or is_private(name) or name in machine_names()
