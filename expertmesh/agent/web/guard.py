"""May the agent connect to a host, and if so, to which addresses?

A name is resolved once for each connection, and the connection goes to an address that was checked
here: what the name resolves to a moment later does not matter.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import psutil

from expertmesh.agent.web.addresses import Address, why_closed
from expertmesh.agent.web.urls import BadUrlError, is_web_port, parse_authority

Resolve = Callable[[str, int], Awaitable[list[Address]]]
"""(host, port) -> its addresses, best first. Raises OSError."""

MAX_ADDRESSES = 8


class RefusedError(Exception):
    """A place to which the agent does not connect; the text says why."""


class NoSuchHostError(Exception):
    """A host whose name has no address."""


@dataclass(frozen=True)
class AllowedHost:
    """A host that is reached wherever it is, at one port or at all."""

    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> "AllowedHost":
        """Of HOST or HOST:PORT, as in a URL. Raises ValueError."""
        bare_v6 = text.count(":") > 1 and not text.startswith("[")
        host, port = parse_authority(f"[{text}]" if bare_v6 else text, 0)
        return cls(host, port or None)

    def covers(self, host: str, port: int) -> bool:
        return host == self.host and self.port in (None, port)


async def resolve_by_system(host: str, port: int) -> list[Address]:
    """What the resolver of this machine says."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(place[0]) for *_, place in found]


def addresses_of_this_machine() -> set[Address]:
    """Of its network interfaces. A public one among them leads to local services as well."""
    found = set()
    for interface in psutil.net_if_addrs().values():
        for entry in interface:
            if entry.family in (socket.AF_INET, socket.AF_INET6):
                found.add(ipaddress.ip_address(entry.address.partition("%")[0]))
    return found


class Guard:
    """Decides about connections: for the fetcher, and for the proxy of the browser."""

    def __init__(
        self,
        allowed: Iterable[AllowedHost] = (),
        resolve: Resolve = resolve_by_system,
        own_addresses: Callable[[], set[Address]] = addresses_of_this_machine,
    ):
        self._allowed = tuple(allowed)
        self._resolve = resolve
        self._own_addresses = own_addresses

    async def addresses(self, host: str, port: int) -> list[str]:
        """Where to connect for a host of `urls.parse_url`, best first.

        Raises RefusedError and NoSuchHostError. One closed address among several closes all of
        them: a name that has both is wrong or means harm.
        """
        allowed = any(one.covers(host, port) for one in self._allowed)
        if not allowed and not is_web_port(port):
            raise RefusedError(f"port {port} of {host} is refused: it is not one of web servers")
        if host.endswith(".invalid"):  # RFC 6761: no name server need hear of it
            raise NoSuchHostError(f"there is no host {host}")
        try:
            found = list(dict.fromkeys(await self._resolve(host, port)))[:MAX_ADDRESSES]
        except (OSError, UnicodeError):
            found = []
        if not found:
            raise NoSuchHostError(f"there is no host {host}")
        if not allowed:
            self._check(host, found)
        return [str(address) for address in found]

    def _check(self, host: str, found: list[Address]) -> None:
        own = self._own_addresses()
        for address in found:
            reason = why_closed(address) or ("of this machine" if address in own else None)
            if reason:
                what = f"{host}" if str(address) == host else f"{host} is at {address}, which"
                raise RefusedError(
                    f"{what} is refused ({reason}): only the public internet is open, "
                    "and what --allow-host names"
                )


def parse_allowed(texts: Iterable[str]) -> list[AllowedHost]:
    """Of a flag's values. Raises ValueError that names the flag."""
    hosts = []
    for text in texts:
        try:
            hosts.append(AllowedHost.parse(text))
        except BadUrlError as error:
            raise ValueError(f"--allow-host {text}: {error}; write HOST or HOST:PORT") from None
    return hosts
