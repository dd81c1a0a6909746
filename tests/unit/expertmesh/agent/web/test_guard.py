"""To which addresses the agent connects."""

import ipaddress
import itertools

import pytest

from expertmesh.agent.web.addresses import Address
from expertmesh.agent.web.guard import (
    AllowedHost,
    Guard,
    NoSuchHostError,
    RefusedError,
    addresses_of_this_machine,
    parse_allowed,
)

NAMES = {
    "public.test": ["93.184.216.34", "2606:4700::1111"],
    "inner.test": ["10.0.0.7"],
    "mixed.test": ["93.184.216.34", "127.0.0.1"],
    "mapped.test": ["::ffff:10.0.0.7"],
    "metadata.google.internal": ["169.254.169.254"],
    "ours.test": ["93.184.216.99"],
}


async def resolve(host: str, port: int) -> list[Address]:
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        if host not in NAMES:
            raise OSError("no such name") from None
        return [ipaddress.ip_address(address) for address in NAMES[host]]


def guard(*allowed: str) -> Guard:
    ours = {ipaddress.ip_address("93.184.216.99")}
    return Guard(parse_allowed(allowed), resolve, lambda: ours)


async def test_a_public_host_gives_its_addresses_in_order() -> None:
    assert await guard().addresses("public.test", 443) == NAMES["public.test"]


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("inner.test", "inner.test is at 10.0.0.7, which is refused .private."),
        ("mixed.test", "127.0.0.1, which is refused .loopback."),
        ("mapped.test", "IPv4 in IPv6"),
        ("metadata.google.internal", "metadata"),
        ("ours.test", "of this machine"),
        ("127.0.0.1", "^127.0.0.1 is refused .loopback.*--allow-host"),
    ],
)
async def test_a_host_with_any_closed_address_is_refused(host: str, words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        await guard().addresses(host, 443)


@pytest.mark.parametrize("port", [22, 25, 53, 1023])
async def test_only_ports_of_web_servers_are_open(port: int) -> None:
    with pytest.raises(RefusedError, match=f"port {port}"):
        await guard().addresses("public.test", port)
    assert await guard("public.test").addresses("public.test", port)


async def test_an_allowed_host_is_open_at_its_port_alone() -> None:
    one = guard("inner.test:8080")
    assert await one.addresses("inner.test", 8080) == ["10.0.0.7"]
    with pytest.raises(RefusedError):
        await one.addresses("inner.test", 8081)


async def test_allowing_an_address_opens_no_name_that_leads_there() -> None:
    one = guard("127.0.0.1")
    assert await one.addresses("127.0.0.1", 80) == ["127.0.0.1"]
    with pytest.raises(RefusedError):
        await one.addresses("mixed.test", 80)


async def test_a_name_without_address_says_so() -> None:
    with pytest.raises(NoSuchHostError, match="there is no host nowhere"):
        await guard().addresses("nowhere.test", 80)


async def test_each_connection_is_resolved_and_checked_again() -> None:
    answers = itertools.cycle(["93.184.216.34", "127.0.0.1"])

    async def rebinding(host: str, port: int) -> list[Address]:
        return [ipaddress.ip_address(next(answers))]

    one = Guard((), rebinding, set)
    assert await one.addresses("rebinding.test", 80) == ["93.184.216.34"]
    with pytest.raises(RefusedError):
        await one.addresses("rebinding.test", 80)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Example.com", AllowedHost("example.com", None)),
        ("127.0.0.1:8888", AllowedHost("127.0.0.1", 8888)),
        ("::1", AllowedHost("::1", None)),
        ("[::1]:80", AllowedHost("::1", 80)),
    ],
)
def test_allowed_hosts_are_read_as_in_urls(text: str, host: AllowedHost) -> None:
    assert AllowedHost.parse(text) == host


@pytest.mark.parametrize("text", ["", "http://a", "a/b", "u@a", "0x7f.1", "a:99999", "*"])
def test_a_bad_allowed_host_names_the_flag(text: str) -> None:
    with pytest.raises(ValueError, match="--allow-host"):
        parse_allowed([text])


def test_this_machines_addresses_include_loopback() -> None:
    assert ipaddress.ip_address("127.0.0.1") in addresses_of_this_machine()
