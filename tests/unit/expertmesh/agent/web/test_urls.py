"""One reading of each URL: what has two is refused."""

from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from expertmesh.agent.web.urls import BadUrlError, join_url, parse_url


@pytest.mark.parametrize(
    ("text", "host", "port", "written"),
    [
        ("http://Example.COM", "example.com", 80, "http://example.com/"),
        ("https://example.com./a?b#c", "example.com", 443, "https://example.com/a?b"),
        ("HTTPS://example.com:443", "example.com", 443, "https://example.com/"),
        ("http://example.com:8080?q=1", "example.com", 8080, "http://example.com:8080/?q=1"),
        ("http://[2001:DB8::1]:81/", "2001:db8::1", 81, "http://[2001:db8::1]:81/"),
        (
            "http://\u4f8b\u3002\u6d4b/\u4e2d",
            "xn--fsq.xn--0zw",
            80,
            "http://xn--fsq.xn--0zw/%E4%B8%AD",
        ),
        ("http://B\u00fccher.de", "xn--bcher-kva.de", 80, "http://xn--bcher-kva.de/"),
        ("http://\uff11\uff12\uff17.0.0.1/", "127.0.0.1", 80, "http://127.0.0.1/"),
        (" http://a_b.test/x\n", "a_b.test", 80, "http://a_b.test/x"),
    ],
)
def test_a_plain_url_is_written_anew(text: str, host: str, port: int, written: str) -> None:
    url = parse_url(text)
    assert (url.host, url.port, str(url)) == (host, port, written)
    assert parse_url(written) == url


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *((f"http://{host}/", "odd way") for host in ("2130706433", "0x7f000001", "0177.0.0.1")),
        *((f"http://{host}/", "odd way") for host in ("127.1", "0x7f.1", "1.2.3.4.5", "256.0.0.1")),
        *((f"http://{host}/", "odd way") for host in ("127.0.0.0x1", "127.0.0.01", "a.0x7f")),
        ("http://user@127.0.0.1/", "user name"),
        ("http://example.com:80@127.0.0.1/", "user name"),
        ("http://example.com\\@127.0.0.1/", "backslash"),
        ("http://exa mple.com/", "space"),
        ("http://example.com/\x00", "control"),
        ("http://example.com/\ud800", "control"),
        ("http://127.0.0.1%00.example.com/", "%"),
        ("http://%31%32%37.0.0.1/", "%"),
        ("http://[fe80::1%25eth0]/", "%"),
        ("http://[::1", "brackets"),
        ("http://[::1]x/", "brackets"),
        ("http://[example.com]/", "not an IPv6"),
        ("http://evil.test\uff0f.example.com/", "not the name"),
        ("http://\u2100.example.com/", "not the name"),
        ("http://a..b/", "not the name"),
        ("http://-a.test/", "not the name"),
        ("http://example.com../", "not the name"),
        ("http:///x", "not the name"),
        ("http://" + "a" * 64 + ".test/", "not the name"),
        ("http://example.com:0/", "port"),
        ("http://example.com:65536/", "port"),
        ("http://example.com:80:80/", "port"),
        ("http://example.com:\u0661/", "port"),
        ("file:///etc/passwd", "only http and https"),
        ("ftp://example.com/", "only http and https"),
        ("gopher://127.0.0.1:6379/_x", "only http and https"),
        ("javascript:alert(1)", "not a URL"),
        ("data:text/html,x", "not a URL"),
        ("//example.com/", "not a URL"),
        ("http:/example.com", "not a URL"),
        ("http:example.com", "not a URL"),
        ("example.com", "not a URL"),
        ("", "not a URL"),
        ("http://example.com/" + "a" * 9000, "at most 8192"),
    ],
)
def test_an_odd_url_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(BadUrlError, match=words):
        parse_url(text)


PIECES = st.sampled_from(
    [
        *("http://", "https://", "//", "/", "\\", "@", ":", "#", "?", "[", "]", "%", "%2f", "."),
        *("..", " ", "127.0.0.1", "::1", "0x7f", "2130706433", "localhost", "a.test", "80"),
        *("\uff0f", "\u3002", "\t", "\n", "\u00ad", "\u212a", "xn--", "-", "_", "&", "="),
    ]
)


@given(
    st.one_of(st.lists(PIECES, max_size=8).map(lambda parts: "http://" + "".join(parts)), st.text())
)
@example("http://a.test#@127.0.0.1/")
@example("http://xn--http/")
@example("http://b\u00fccher.test/")
@example("http://a.test?@127.0.0.1/")
def test_whatever_is_accepted_means_the_same_host_to_other_parsers(text: str) -> None:
    try:
        url = parse_url(text)
    except BadUrlError:
        return
    written = str(url)
    assert parse_url(written) == url
    assert written.isascii()
    by_stdlib, by_httpx = urlsplit(written), httpx.URL(written)
    assert by_stdlib.hostname == by_httpx.raw_host.decode("ascii") == url.host
    assert (by_stdlib.port or {"http": 80, "https": 443}[by_stdlib.scheme]) == url.port
    assert by_stdlib.username is None
    assert by_httpx.userinfo == b""


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("/b", "http://a.test/b"),
        ("c?d", "http://a.test/x/c?d"),
        ("//b.test/", "http://b.test/"),
        ("https://b.test", "https://b.test/"),
        ("?q", "http://a.test/x/y?q"),
        ("", "http://a.test/x/y"),
    ],
)
def test_redirects_are_read_from_where_they_are(location: str, leads_to: str) -> None:
    assert str(join_url(parse_url("http://a.test/x/y"), location)) == leads_to


@pytest.mark.parametrize(
    "location", ["\\\\127.0.0.1/", "file:///etc/passwd", "//u@b.test", "http://[", "http://a b/"]
)
def test_an_odd_redirect_is_refused(location: str) -> None:
    with pytest.raises(BadUrlError):
        join_url(parse_url("http://a.test/x/y"), location)
