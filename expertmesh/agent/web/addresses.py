"""Is an IP address one of the public internet, or does it lead to this machine or its network?

IPv4 is public except for the blocks of `_CLOSED_V4`; IPv6 is closed except for global unicast
(2000::/3) without `_CLOSED_V6`. Both from IANA's registries of special-purpose addresses. Forms
that hold an IPv4 address (mapped, NAT64, 6to4, Teredo) are closed as a whole: what they reach
depends on a translator that nobody here can ask.
"""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_CLOSED_V4: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "this machine"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared by a provider's customers"),
    ("127.0.0.0/8", "loopback"),
    ("168.63.129.16/32", "a cloud's metadata"),
    ("169.254.0.0/16", "link-local, where clouds keep metadata"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "for documentation"),
    ("192.88.99.0/24", "a 6to4 relay"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "for benchmarks"),
    ("198.51.100.0/24", "for documentation"),
    ("203.0.113.0/24", "for documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
)
_CLOSED_V6: tuple[tuple[str, str], ...] = (
    ("::1/128", "loopback"),
    ("::ffff:0:0/96", "IPv4 in IPv6"),
    ("64:ff9b::/96", "IPv4 behind NAT64"),
    ("64:ff9b:1::/48", "IPv4 behind NAT64"),
    ("2001::/32", "IPv4 behind Teredo"),
    ("2001::/23", "reserved"),
    ("2001:db8::/32", "for documentation"),
    ("2002::/16", "IPv4 behind 6to4"),
    ("3fff::/20", "for documentation"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
)
_OPEN_V6 = ipaddress.IPv6Network("2000::/3")
_NETWORKS_V4 = tuple((ipaddress.IPv4Network(block), reason) for block, reason in _CLOSED_V4)
_NETWORKS_V6 = tuple((ipaddress.IPv6Network(block), reason) for block, reason in _CLOSED_V6)


def why_closed(address: Address) -> str | None:
    """What the address is, if it is not one of the public internet; None if it is."""
    if isinstance(address, ipaddress.IPv4Address):
        return next((reason for block, reason in _NETWORKS_V4 if address in block), None)
    if address.scope_id is not None:
        return "of one network interface only"
    for block, reason in _NETWORKS_V6:
        if address in block:
            return reason
    return None if address in _OPEN_V6 else "reserved"
