"""Can the address a member advertises be reached from here?

A member behind NAT or a firewall, or with a wrong --advertise, can call the router while no
other service can call it. So the router opens a TCP connection first.
"""

import asyncio
import ipaddress
import os
import socket

from router_svc.members.addresses import AddressRules
from rpc.config import Address
from rpc.errors import NotReady

DIAL_TIMEOUT_S = 2.0


async def check(address: Address, caller_host: str, rules: AddressRules, field: str) -> None:
    """Raises ValueError naming `field` when the address must not be dialled, NotReady when its
    name cannot be looked up."""
    try:
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            ips = await _ips(address)
    except (TimeoutError, OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no answer"
        raise NotReady(f"{field}: cannot look up {address}: {reason}") from None
    if problem := rules.problem(ips, caller_host):
        raise ValueError(f"{field}: {problem}")


async def dial(
    address: Address,
    timeout_s: float = DIAL_TIMEOUT_S,
    *,
    caller_host: str = "",
    rules: AddressRules | None = None,
) -> str:
    """Open and close a TCP connection; returns why it failed, or an empty text."""
    try:
        async with asyncio.timeout(timeout_s):
            ips = await _ips(address)
            # A name may have other addresses by now.
            if rules is not None and (problem := rules.problem(ips, caller_host)):
                return f"will not dial {address}: {problem}"
            _, writer = await asyncio.open_connection(ips[0], address.port)
    except TimeoutError:
        return f"cannot reach {address}: no answer within {timeout_s:g} s"
    except socket.gaierror as error:
        return f"cannot reach {address}: {error.strerror}"
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        return f"cannot reach {address}: {os.strerror(number) if number else error}"
    writer.close()
    return ""


async def _ips(address: Address) -> list[str]:
    """The addresses of a host in the system's order; a literal address needs no look-up."""
    try:
        return [str(ipaddress.ip_address(address.host))]
    except ValueError:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        return [str(one[4][0]) for one in found]
