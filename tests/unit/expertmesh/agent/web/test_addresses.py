"""Which addresses count as the public internet."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.agent.web.addresses import why_closed

CLOSED = {
    **dict.fromkeys(("127.0.0.1", "127.255.255.254", "::1"), "loopback"),
    **dict.fromkeys(("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"), "private"),
    **dict.fromkeys(("fc00::1", "fd00:ec2::254", "fd20:ce::254"), "private"),
    **dict.fromkeys(("169.254.169.254", "169.254.0.23"), "link-local, where clouds keep metadata"),
    "fe80::1": "link-local",
    "100.100.100.200": "shared by a provider's customers",
    "168.63.129.16": "a cloud's metadata",
    **dict.fromkeys(("0.0.0.0", "0.1.2.3"), "this machine"),
    **dict.fromkeys(("224.0.0.1", "239.255.255.250", "ff02::1"), "multicast"),
    **dict.fromkeys(("255.255.255.255", "240.0.0.1", "192.0.0.192", "::", "::7f00:1"), "reserved"),
    **dict.fromkeys(("::ffff:127.0.0.1", "::ffff:8.8.8.8"), "IPv4 in IPv6"),
    **dict.fromkeys(("64:ff9b::7f00:1", "64:ff9b:1::a00:1"), "IPv4 behind NAT64"),
    "2002:7f00:1::1": "IPv4 behind 6to4",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": "IPv4 behind Teredo",
    "fe80::1%1": "of one network interface only",
}


@pytest.mark.parametrize(("address", "reason"), CLOSED.items())
def test_what_is_not_public_is_closed_and_named(address: str, reason: str) -> None:
    assert why_closed(ipaddress.ip_address(address)) == reason


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0"),
        *("126.255.255.255", "128.0.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255"),
        *("223.255.255.255", "2606:4700::1111", "2001:4860:4860::8888", "2400::1"),
    ],
)
def test_public_addresses_are_open_up_to_the_edges_of_the_closed_ones(address: str) -> None:
    assert why_closed(ipaddress.ip_address(address)) is None


@given(st.ip_addresses())
def test_nothing_is_open_that_python_knows_not_to_be_global(
    address: ipaddress._BaseAddress,
) -> None:
    if not address.is_global or address.is_multicast:
        assert why_closed(address) is not None


@given(st.ip_addresses(v=4))
def test_no_form_of_ipv6_opens_a_closed_ipv4_address(inner: ipaddress.IPv4Address) -> None:
    number = int(inner)
    forms = {
        "compatible": number,
        "mapped": 0xFFFF << 32 | number,
        "NAT64": 0x64FF9B << 96 | number,
        "local NAT64": 0x64FF9B0001 << 80 | number,
        "6to4": 0x2002 << 112 | number << 80 | 1,
        "Teredo": 0x20010000 << 96 | number ^ 0xFFFFFFFF,
    }
    assert [
        name for name, value in forms.items() if not why_closed(ipaddress.IPv6Address(value))
    ] == []
