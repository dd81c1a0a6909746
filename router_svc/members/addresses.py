"""Which address of a member may be dialled, given what it says and where it called from?

A member is dialled at the address it called from. Any other would let it direct the router,
attention services and Prometheus to hosts outside the mesh; an operator may allow more networks.
"""

import errno
import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import unquote

from rpc.config import Address

ANY_HOSTS = ("", "0.0.0.0", "::")


Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


def seen_host(peer: str) -> str:
    """The host in gRPC's name of a peer ("ipv4:10.0.0.7:4711"); empty without one."""
    family, _, rest = peer.partition(":")
    if family not in ("ipv4", "ipv6"):
        return ""
    return unquote(rest).rpartition(":")[0].strip("[]")


def advertised(text: str, caller_host: str, field: str) -> Address:
    """HOST:PORT as the member gave it; the caller's host replaces one that means "any".

    Raises ValueError naming `field`.
    """
    host, separator, port = text.strip().rpartition(":")
    if host.strip("[]") in ANY_HOSTS:
        if not separator or not caller_host:
            raise ValueError(f"{field}: expected HOST:PORT, got {text[:80]!r}")
        text = str(Address(host=caller_host, port=0)).removesuffix("0") + port
    address = Address.parse(text[:300], field)
    if address.port == 0:
        raise ValueError(f"{field}: port 0 cannot be dialled, got {text[:80]!r}")
    return address


def is_ours(ip: Ip) -> bool:
    """Whether this machine has the address: only then can a socket be bound to it."""
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(ip), 0))
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL):
            return False
        raise
    return True


class AddressRules:
    """Which addresses a member may give."""

    def __init__(self, networks: Iterable[str] = (), is_ours: Callable[[Ip], bool] = is_ours):
        """`networks`: allowed in addition to the caller's own address, like 10.0.0.0/8.

        Raises ValueError naming --member-network.
        """
        self._is_ours = is_ours
        self._networks = []
        for text in networks:
            try:
                self._networks.append(ipaddress.ip_network(text, strict=False))
            except ValueError:
                raise ValueError(
                    f"--member-network: expected a network like 10.0.0.0/8, got {text!r}"
                ) from None

    def problem(self, ips: Sequence[str], caller_host: str) -> str:
        """Why a member's IP addresses must not be dialled; empty when they may be.

        `ips` are all addresses of its host name: at least one has to be allowed, and none may be
        loopback, link-local, multicast or unspecified.
        """
        caller = _ip(caller_host) if caller_host else None
        found = [_ip(text) for text in ips]
        for ip in found:
            if self._is_special(ip, caller):
                return (
                    f"a member may not give {ip} when it calls from {caller_host or 'here'};"
                    " the router's --member-network can allow it"
                )
        if any(self._is_allowed(ip, caller) for ip in found):
            return ""
        shown = ", ".join(map(str, found[:4]))
        return (
            f"{shown} is not where the member calls from ({caller_host}): correct its --advertise,"
            " or allow the network with the router's --member-network"
        )

    def _is_special(self, ip: Ip, caller: Ip | None) -> bool:
        if self._is_listed(ip):
            return False
        if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
            return True
        return ip.is_loopback and caller is not None and not self._is_ours(caller)

    def _is_allowed(self, ip: Ip, caller: Ip | None) -> bool:
        if caller is None or ip == caller or self._is_listed(ip):
            return True
        # A member on the router's machine may call from any of the machine's addresses.
        return self._is_ours(caller) and self._is_ours(ip)

    def _is_listed(self, ip: Ip) -> bool:
        return any(ip in network for network in self._networks)


def _ip(text: str) -> Ip:
    """Parse an address as the system writes it; an IPv4-mapped IPv6 address becomes IPv4."""
    ip = ipaddress.ip_address(text.partition("%")[0])
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip
