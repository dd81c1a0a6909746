"""What comes of a page, and what a site cannot make the fetcher do."""

import ipaddress
import ssl
from pathlib import Path

import pytest

from expertmesh.agent.web.addresses import Address
from expertmesh.agent.web.fetching import Fetcher, FetchError, FetchLimits
from expertmesh.agent.web.guard import AllowedHost, Guard, RefusedError
from tests.support.expertmesh.local_site import (
    Routes,
    answer,
    bomb,
    drip,
    local_site,
    redirect,
    silence,
)
from tests.support.mesh_certificates import Authority

NAME = "router.expertmesh.internal"
SMALL = FetchLimits(max_bytes=1 << 20)
QUICK = FetchLimits(time_s=0.4, connect_s=0.2)


async def fetched(routes: Routes, path: str = "/", limits: FetchLimits = SMALL) -> bytes:
    async with local_site(routes) as site:
        return (await Fetcher(Guard([site.allowed]), limits).get(site.url(path))).body


async def test_a_page_comes_with_its_type_and_its_last_address() -> None:
    routes = {"/": redirect("/b?c=1"), "/b": answer("hi", content_type="text/html; charset=gbk")}
    async with local_site(routes) as site:
        page = await Fetcher(Guard([site.allowed])).get(site.url())
    assert (page.status, page.content_type, page.body) == (200, "text/html; charset=gbk", b"hi")
    assert page.url == site.url("/b?c=1")
    assert site.paths == ["/", "/b?c=1"]


async def test_a_request_has_the_hosts_name_and_no_cookie_of_the_page_before() -> None:
    routes = {"/": answer(status=302, location="/b", set_cookie="a=b"), "/b": answer("hi")}
    async with local_site(routes) as site:
        await Fetcher(Guard([site.allowed])).get(site.url())
    assert all(f"Host: 127.0.0.1:{site.port}\r\n" in head for head in site.heads)
    assert not any("cookie" in head.lower() for head in site.heads)


async def test_the_environments_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert await fetched({"/": answer("hi")}) == b"hi"


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:1/",
        "http://localhost/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://10.0.0.1/",
        "//192.168.0.1/",
        "http://2130706433/",
        "http://0/",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "http://user@127.0.0.1/",
    ],
)
async def test_a_redirect_to_a_forbidden_place_is_refused(location: str) -> None:
    with pytest.raises(RefusedError):
        await fetched({"/": redirect("/again", 307), "/again": redirect(location, 301)})


async def test_redirects_have_an_end() -> None:
    async with local_site({"/": redirect("/")}) as site:
        with pytest.raises(FetchError, match="more than 10 redirects"):
            await Fetcher(Guard([site.allowed])).get(site.url())
    assert len(site.paths) == 11


async def test_a_bomb_is_an_error() -> None:
    with pytest.raises(FetchError, match="more than 1 MB"):
        await fetched({"/": bomb(20 << 20)})


async def test_a_body_beyond_the_limit_is_an_error() -> None:
    with pytest.raises(FetchError, match="more than 1 MB"):
        await fetched({"/": answer(b"a" * (1 << 20) + b"b")})


@pytest.mark.parametrize("handler", [silence, drip])
async def test_a_slow_server_does_not_hold_the_agent(handler: object) -> None:
    with pytest.raises(TimeoutError):
        await fetched({"/": handler}, limits=QUICK)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"SSH-2.0-x\r\n", b"\0" * 100),
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000 + b"\r\n\r\n",
        *(answer(b"not gzip", content_encoding="gzip"), answer(b"x", content_encoding="br")),
    ],
)
async def test_a_server_that_breaks_the_rules_is_an_error(raw: bytes) -> None:
    with pytest.raises(FetchError):
        await fetched({"/": raw})


async def test_a_closed_port_and_a_missing_name_are_errors() -> None:
    async with local_site({}) as site:
        pass
    guard = Guard([AllowedHost("127.0.0.1", None)])
    with pytest.raises(FetchError):
        await Fetcher(guard, QUICK).get(site.url())
    with pytest.raises(FetchError, match="no host"):
        await Fetcher(guard, QUICK).get("http://nowhere.invalid/")


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    """A name is asked for once: what it would say next (here: a closed port) does not matter."""
    asked = []

    async def resolve(host: str, port: int) -> list[Address]:
        asked.append(host)
        return [ipaddress.ip_address("127.0.0.1" if len(asked) == 1 else "127.0.0.2")]

    async with local_site({"/": answer("hi")}) as site:
        guard = Guard([AllowedHost("a.test", site.port)], resolve)
        page = await Fetcher(guard).get(site.url(host="a.test"))
    assert (page.body, asked) == (b"hi", ["a.test"])
    assert f"Host: a.test:{site.port}\r\n" in site.heads[0]


async def test_the_next_address_is_tried_where_the_first_does_not_answer() -> None:
    async def resolve(host: str, port: int) -> list[Address]:
        return [ipaddress.ip_address("127.0.0.9"), ipaddress.ip_address("127.0.0.1")]

    async with local_site({"/": answer("hi")}) as site:
        guard = Guard([AllowedHost("a.test", None)], resolve)
        assert (await Fetcher(guard).get(site.url(host="a.test"))).body == b"hi"


async def test_tls_asks_for_the_hosts_name_and_holds_the_certificate_against_it(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("router")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(files.cert, files.key)
    names: list[str | None] = []
    served.sni_callback = lambda _, name, __: names.append(name)
    trusted = ssl.create_default_context(cafile=str(authority.path))

    async def resolve(host: str, port: int) -> list[Address]:
        return [ipaddress.ip_address("127.0.0.1")]

    async with local_site({"/": answer("hi")}, served) as site:
        guard = Guard([AllowedHost(name, None) for name in (NAME, "b.test")], resolve)
        fetcher = Fetcher(guard, SMALL, trusted)
        assert (await fetcher.get(f"https://{NAME}:{site.port}/")).body == b"hi"
        assert names == [NAME]
        with pytest.raises(FetchError, match="certificate"):
            await fetcher.get(f"https://b.test:{site.port}/")
        with pytest.raises(FetchError, match="certificate"):
            await Fetcher(guard).get(f"https://{NAME}:{site.port}/")
