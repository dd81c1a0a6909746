"""Rows A9 and A10 without a socket: which keys, hosts and origins pass?"""

import pytest

from gateway.errors import RequestError
from gateway.http.auth import ANONYMOUS, ApiKeys
from gateway.http.errors import STATUS
from gateway.http.host_guard import HostGuard, Trust, is_local_name

KEYS = ApiKeys(["first-key-123", "second-key-456"])


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [b""],
        [b"Bearer"],
        [b"Bearer "],
        [b"Bearer wrong"],
        [b"first-key-123"],
        [b"Basic first-key-123"],
        [b"Bearer first-key-1234"],
        [b"Bearer first-key-12"],
        [b"Bearer first-key-123", b"Bearer first-key-123"],
        [b"Bearer \xff\xfe"],
    ],
)
def test_anything_but_one_valid_bearer_key_is_refused(headers: list[bytes]) -> None:
    assert KEYS.key_id(headers) is None


def test_each_key_has_its_own_identity() -> None:
    first, second = KEYS.key_id([b"Bearer first-key-123"]), KEYS.key_id([b"bearer second-key-456"])
    assert first is not None
    assert first != second
    assert "key-123" not in first
    assert ApiKeys(["second-key-456", "first-key-123"]).key_id([b"Bearer first-key-123"]) == first


def test_without_keys_everyone_is_anonymous() -> None:
    open_keys = ApiKeys([])
    assert open_keys.key_id([]) == open_keys.key_id([b"Bearer whatever"]) == ANONYMOUS


@pytest.mark.parametrize(
    "name, local",
    [
        ("localhost", True),
        ("LocalHost.", True),
        ("app.localhost", True),
        ("0.0.0.0", True),
        ("::", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("evillocalhost", False),
        (".", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_local_names(name: str, local: bool) -> None:
    assert is_local_name(name) is local


def check(
    host: bytes | None,
    origin: bytes | None = None,
    *,
    is_loopback: bool = True,
    has_keys: bool = False,
    origins: tuple[str, ...] = (),
    hosts: tuple[str, ...] = (),
) -> int:
    async def app(*_: object) -> None:
        raise AssertionError("not called")

    trust = Trust(hosts=hosts, origins=origins, machine_name="Workstation.lan.example")
    guard = HostGuard(app, trust=trust, is_loopback=is_loopback, has_keys=has_keys)
    try:
        guard._check(host, origin)
    except RequestError as error:
        return STATUS[error.kind]
    return 200


@pytest.mark.parametrize(
    "host",
    [
        *b"localhost:8000 127.0.0.1 [::1]:8000 app.localhost:80 0.0.0.0:8000".split(),
        *b"host.docker.internal:8000 printer.local workstation:8000 WORKSTATION.local".split(),
        *b"workstation.lan.example nas.home.arpa gateway.mesh.svc".split(),
        None,
    ],
)
def test_local_hosts_pass(host: bytes | None) -> None:
    assert check(host) == 200


@pytest.mark.parametrize(
    "host",
    [
        *b"evil.example evil.example:8000 [bad \xff local internal x.local.evil.example".split(),
        *b"10.0.0.1 workstation.evil.example evilworkstation".split(),
        *b"evil.example@localhost localhost/evil.example localhost:http".split(),
        b"",
    ],
)
def test_foreign_hosts_are_refused_on_loopback(host: bytes) -> None:
    assert check(host) == 403


def test_other_hosts_pass_by_flag() -> None:
    for host in (b"gpu.lan:8000", b"GPU.lan", b"192.0.2.7:80", b"[2001:db8::1]:80"):
        assert check(host) == 403
        assert check(host, hosts=("gpu.lan", "192.0.2.7", "2001:db8::1")) == 200
        assert check(host, hosts=("*",)) == 200
    assert check(b"other.lan", hosts=("gpu.lan",)) == 403


def test_a_page_of_a_name_that_anyone_on_the_network_may_take_is_foreign() -> None:
    assert check(b"evil.local", b"http://evil.local") == 403
    assert check(b"evil.internal", b"http://evil.internal") == 403
    assert check(b"workstation.local:80", b"http://workstation.local:80") == 200
    assert check(b"gpu.lan", b"http://gpu.lan", hosts=("gpu.lan",)) == 200
    assert check(b"localhost", b"http://gpu.lan", hosts=("gpu.lan",)) == 403


@pytest.mark.parametrize(
    "origin, status",
    [
        (b"http://localhost:8000", 200),
        (b"http://localhost", 403),
        (b"http://localhost:3000", 403),
        (b"http://127.0.0.1:8000", 403),
        (b"http://ui.localhost:8000", 403),
        (b"http://localhost:port", 403),
        (b"tauri://localhost", 403),
        (b"http://evil.example", 403),
        (b"null", 403),
        (b"http://localhost.evil.example", 403),
        (b"https://app.example", 200),
    ],
)
def test_origins_on_loopback(origin: bytes, status: int) -> None:
    assert check(b"localhost:8000", origin, origins=("https://app.example",)) == status


@pytest.mark.parametrize("origin", [b"http://localhost:3000", b"tauri://localhost"])
def test_other_pages_of_this_machine_pass_by_flag(origin: bytes) -> None:
    assert check(b"localhost:8000", origin, origins=(origin.decode(),)) == 200
    assert check(b"localhost:8000", origin, origins=("*",)) == 200


def test_an_open_address_without_keys_takes_its_own_origin_only() -> None:
    assert check(b"host.lan:80", b"http://host.lan", is_loopback=False) == 200
    assert check(b"host.lan:80", b"http://evil.example", is_loopback=False) == 403


def test_with_keys_the_key_decides() -> None:
    assert check(b"host.lan", b"http://evil.example", is_loopback=False, has_keys=True) == 200
