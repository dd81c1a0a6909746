"""Is the name in a Host header one that an attacker cannot own? Against DNS rebinding.

A web page can make its own domain resolve to this machine's address and then read what is served
there; the Host header still carries that domain.
"""

import ipaddress
import socket
from collections.abc import Iterable

PRIVATE_DOMAINS = (".local", ".internal", ".localhost", ".home.arpa", ".svc")
"""Nobody can register these in the public DNS."""


def normal(name: str) -> str:
    """A name as it is compared: in lower case, without a final dot."""
    return name.lower().removesuffix(".")


def is_private(name: str) -> bool:
    """Whether no public DNS server answers for the name."""
    return normal(name).endswith(PRIVATE_DOMAINS)


def machine_names(hostname: str | None = None) -> frozenset[str]:
    """This machine's names: full, short, and for multicast DNS."""
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


def ip_of(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that the text is, or None for a name."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


class HostNames:
    """The names under which this machine may be called."""

    def __init__(self, allowed: Iterable[str] = (), machine_name: str | None = None):
        """`allowed` adds names to the machine's own; '*' adds every one."""
        self._own = machine_names(machine_name) | {normal(name) for name in allowed}

    def owns(self, name: str) -> bool:
        """Whether the name is this machine's, or an allowed one."""
        return name != "" and ("*" in self._own or normal(name) in self._own)

    def serves(self, name: str) -> bool:
        """Whether a request for the name may be answered: no stranger can own it."""
        return self.owns(name) or is_private(name)


def is_own_name(name: str, *, allowed: Iterable[str] = ()) -> bool:
    """Whether a port that other machines call may answer a request for `name`.

    Beside what `HostNames` serves: IP addresses, since no name was resolved, and names without
    a dot, which local networks give.
    """
    return HostNames(allowed).serves(name) or ip_of(name) is not None or "." not in normal(name)
