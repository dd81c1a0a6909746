"""Who is still answered when a stranger takes up connections without a key or certificate?"""

import contextlib
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.mesh import PORTS, ServiceProcess
from tests.support.mesh_certificates import Authority
from tests.support.places import DEMO_MODEL

pytestmark = pytest.mark.slow

KEY = "the-only-valid-key"
OWING = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 9000\r\n\r\n{"
)
ANSWERED_S = 5.0


class Crowd:
    """Connections of an attacker, who opens a new one whenever one is closed."""

    def __init__(self, address: str, data: bytes):
        host, port = address.rsplit(":", 1)
        self._address = (host, int(port))
        self._data = data
        self._connections: list[socket.socket] = []

    def grow(self, size: int) -> None:
        """Open this many more."""
        for _ in range(size):
            connection = socket.socket()
            connection.settimeout(2.0)
            with contextlib.suppress(OSError):
                connection.connect(self._address)
                connection.sendall(self._data)
            self._connections.append(connection)

    def leave(self) -> None:
        for connection in self._connections:
            connection.close()


@pytest.fixture
def started() -> Iterator[Callable[..., ServiceProcess]]:
    """Starts services, and stops them at the end: each must still end by itself."""
    processes: list[ServiceProcess] = []

    def start(module: str, *flags: str, open_files: int | None = None) -> ServiceProcess:
        processes.append(ServiceProcess(module, flags, open_files=open_files))
        return processes[-1].wait_listening()

    yield start
    for process in reversed(processes):
        assert process.stop() == 0


@pytest.fixture
def crowd() -> Iterator[Callable[[str, bytes], Crowd]]:
    crowds: list[Crowd] = []

    def gather(address: str, data: bytes = b"") -> Crowd:
        crowds.append(Crowd(address, data))
        return crowds[-1]

    yield gather
    for each in crowds:
        each.leave()


def status_of(address: str, path: str, **headers: str) -> int:
    return httpx.get(f"http://{address}{path}", headers=headers, timeout=ANSWERED_S).status_code


def assert_gateway_answers(gateway: ServiceProcess) -> None:
    assert status_of(gateway.address, "/livez") == 200
    assert status_of(gateway.address, "/readyz") == 503  # answered: there is no attention service
    assert status_of(gateway.address, "/v1/models", authorization=f"Bearer {KEY}") == 200


@pytest.mark.parametrize("open_files", [None, 1024], ids=["as it is", "1024 files"])
@pytest.mark.parametrize("data", [OWING, b""], ids=["owing a body", "silent"])
def test_a_gateway_answers_probes_and_its_clients(
    started: Callable[..., ServiceProcess],
    crowd: Callable[..., Crowd],
    data: bytes,
    open_files: int | None,
) -> None:
    gateway = started(
        "gateway",
        "--model",
        str(DEMO_MODEL),
        "--listen",
        "127.0.0.1:0",
        "--api-key",
        KEY,
        "--attention",
        "127.0.0.1:9",
        open_files=open_files,
    )
    if open_files:
        assert any("--max-connections: " in line for line in gateway.lines)
    lines_before = len(gateway.lines)
    attackers = crowd(gateway.address, data)
    for _ in range(5):
        attackers.grow(220)
        assert_gateway_answers(gateway)
    attackers.grow(60)
    deadline_s = time.monotonic() + 8
    while time.monotonic() < deadline_s:
        attackers.grow(20)
        assert_gateway_answers(gateway)
    assert len(gateway.lines) - lines_before < 20, gateway.lines[-20:]
    assert not any("Traceback" in line for line in gateway.lines)


@pytest.mark.parametrize("with_tls", [True, False], ids=["handshakes", "plaintext"])
def test_a_pool_with_few_files_answers_probes_beside_half_open_connections(
    started: Callable[..., ServiceProcess],
    crowd: Callable[..., Crowd],
    tmp_path: Path,
    with_tls: bool,
) -> None:
    flags: tuple[str, ...] = ()
    if with_tls:
        files = Authority(tmp_path).issue("expert")
        flags = (
            "--tls-ca",
            str(files.ca),
            "--tls-cert",
            str(files.cert),
            "--tls-key",
            str(files.key),
        )
    pool = started(
        "expert_svc",
        *PORTS,
        "--model",
        str(DEMO_MODEL),
        "--dtype",
        "f32",
        "--threads",
        "1",
        "--layers",
        "0",
        *flags,
        open_files=96,
    )
    assert any("gRPC connections: " in line for line in pool.lines)
    lines_before = len(pool.lines)
    strangers, silent = crowd(pool.address), crowd(pool.ops_address)
    for _ in range(6):
        strangers.grow(20)
        silent.grow(20)
        assert status_of(pool.ops_address, "/livez") == 200
        assert status_of(pool.ops_address, "/readyz") in (200, 503)
        assert status_of(pool.ops_address, "/metrics") == 200
    assert len(pool.lines) - lines_before < 20, pool.lines[-20:]


def test_a_service_lifts_the_soft_limit_that_it_was_started_with(
    started: Callable[..., ServiceProcess],
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, before[1]))  # as the router inherits it
    try:
        router = started("router_svc", *PORTS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    limits = Path(f"/proc/{router.process.pid}/limits").read_text(encoding="ascii")
    (line,) = (line for line in limits.splitlines() if line.startswith("Max open files"))
    assert line.split()[3:5] == [str(before[1])] * 2


def test_a_limit_that_leaves_no_room_is_one_clear_line() -> None:
    router = ServiceProcess("router_svc", PORTS, open_files=24)
    try:
        assert router.process.wait(30) == 2
        time.sleep(0.2)
        assert "ulimit -n" in router.lines[-1]
        assert not any("Traceback" in line for line in router.lines)
    finally:
        if router.process.poll() is None:
            router.kill()
