"""The gateway as a process: flags, ports, signals, a router's topology, an attention that dies."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.gateway.processes import start_attention, start_gateway, url
from tests.support.mesh import PORTS, ServiceProcess

pytestmark = pytest.mark.slow

CHAT: Any = {"model": "demo", "messages": [{"role": "user", "content": "Sort: pear, apple, fig"}]}


@pytest.fixture(scope="module")
def attention() -> Iterator[ServiceProcess]:
    """One attention service for all tests that leave it alive."""
    started: list[ServiceProcess] = []
    yield start_attention(started)
    assert started[0].stop() == 0


def endless_chat(gateway: ServiceProcess) -> Any:
    """A stream that runs until the context is full, thousands of tokens from now."""
    body = {**CHAT, "ignore_eos": True, "stream": True}
    return httpx.stream("POST", url(gateway, "/v1/chat/completions"), json=body, timeout=30)


def test_signals_end_it_with_status_0_and_the_log_has_its_two_lines(
    attention: ServiceProcess, processes: list[ServiceProcess]
) -> None:
    gateway = start_gateway(processes, "--attention", attention.address).wait_listening()
    gateway.wait_for(r" ready$")
    assert httpx.get(url(gateway, "/readyz")).status_code == 200
    reply = httpx.post(url(gateway, "/v1/chat/completions"), json=CHAT, timeout=30)
    assert reply.status_code == 200
    gateway.wait_for(r"running 0, waiting 0, ended 1")
    assert gateway.stop() == 0
    assert not [line for line in gateway.lines if "Traceback" in line or " ERROR " in line]


def test_running_streams_finish_during_the_drain(
    attention: ServiceProcess, processes: list[ServiceProcess]
) -> None:
    gateway = start_gateway(processes, "--attention", attention.address).wait_listening()
    gateway.wait_for(r" ready$")
    body = {**CHAT, "ignore_eos": True, "max_tokens": 150, "stream": True}
    text = b""
    with httpx.stream("POST", url(gateway, "/v1/chat/completions"), json=body, timeout=30) as reply:
        parts = reply.iter_raw()
        text += next(parts)
        gateway.process.terminate()
        text += b"".join(parts)
    assert text.endswith(b"data: [DONE]\n\n")
    assert b'"finish_reason":"length"' in text
    assert gateway.process.wait(10) == 0


def test_streams_beyond_the_drain_end_with_an_error(
    attention: ServiceProcess, processes: list[ServiceProcess]
) -> None:
    gateway = start_gateway(
        processes, "--attention", attention.address, "--drain-s", "0.3"
    ).wait_listening()
    gateway.wait_for(r" ready$")
    with endless_chat(gateway) as reply:
        parts = reply.iter_raw()
        text = next(parts)
        gateway.process.terminate()
        text += b"".join(parts)
    assert b"[DONE]" not in text
    error = json.loads(text.rpartition(b"data: ")[2])["error"]
    assert (error["code"], error["type"]) == ("not_ready", "service_unavailable_error")
    assert gateway.process.wait(10) == 0


def test_a_second_signal_ends_it_at_once(
    attention: ServiceProcess, processes: list[ServiceProcess]
) -> None:
    gateway = start_gateway(processes, "--attention", attention.address).wait_listening()
    gateway.wait_for(r" ready$")
    with endless_chat(gateway) as reply:
        parts = reply.iter_raw()
        next(parts)
        gateway.process.terminate()
        gateway.wait_for(r"stopping")
        gateway.process.terminate()
        assert gateway.process.wait(5) == 0


def test_a_client_that_leaves_frees_the_sequence(
    attention: ServiceProcess, processes: list[ServiceProcess]
) -> None:
    gateway = start_gateway(processes, "--attention", attention.address).wait_listening()
    gateway.wait_for(r" ready$")
    with endless_chat(gateway) as reply:
        parts = reply.iter_raw()  # kept: httpx closes the connection with it
        next(parts)
        wait_for(lambda: running(attention) == 1)
    wait_for(lambda: running(attention) == 0)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.05)


def running(attention: ServiceProcess) -> float:
    text = httpx.get(f"http://{attention.ops_address}/metrics").text
    return sum(
        float(line.split()[-1])
        for line in text.splitlines()
        if line.startswith("expertmesh_sequences_running")
    )


def test_a_killed_attention_service_ends_streams_with_an_error_and_the_next_one_is_found(
    processes: list[ServiceProcess], tmp_path: Path
) -> None:
    router = ServiceProcess("router_svc", [*PORTS, "--state", str(tmp_path / "epoch")])
    processes.append(router)
    router.wait_listening()
    flags = ("--router", router.address, "--attention-id")
    first = start_attention(processes, *flags, "one")
    gateway = start_gateway(processes, "--router", router.address).wait_listening()
    gateway.wait_for(r" ready$")
    with endless_chat(gateway) as reply:
        parts = reply.iter_raw()
        text = next(parts)
        killer = threading.Timer(0.1, first.kill)
        killer.start()
        text += b"".join(parts)
    assert json.loads(text.rpartition(b"data: ")[2])["error"]["code"] == "not_ready"
    assert b"[DONE]" not in text
    wait_for_status(gateway, 503)
    reply = httpx.post(url(gateway, "/v1/chat/completions"), json=CHAT, timeout=30)
    assert reply.status_code == 503
    assert reply.headers["retry-after"]
    start_attention(processes, *flags, "two")
    wait_for_status(gateway, 200)
    reply = httpx.post(url(gateway, "/v1/chat/completions"), json=CHAT, timeout=30)
    assert reply.status_code == 200
    assert "Traceback" not in "\n".join(gateway.lines)


def wait_for_status(gateway: ServiceProcess, status: int) -> None:
    wait_for(lambda: httpx.get(url(gateway, "/readyz")).status_code == status)


def test_a_taken_port_is_one_clear_line_and_status_2(processes: list[ServiceProcess]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        gateway = start_gateway(processes, "--attention", "127.0.0.1:1", "--listen", address)
        assert gateway.process.wait(15) == 2
        gateway.wait_for(rf"gateway --listen {address}: cannot bind")
        assert not [line for line in gateway.lines if "Traceback" in line]


def test_bad_tls_files_are_one_clear_line_and_status_2(
    processes: list[ServiceProcess], tmp_path: Path
) -> None:
    flags = []
    for name in ("ca", "cert", "key"):
        path = tmp_path / f"{name}.pem"
        path.write_text("not PEM")
        flags += [f"--tls-{name}", str(path)]
    gateway = start_gateway(processes, "--attention", "127.0.0.1:1", *flags)
    assert gateway.process.wait(15) == 2
    gateway.wait_for(r"error: --tls-ca: .* is not a PEM certificate")


def test_it_listens_and_tells_why_it_is_not_ready_before_any_attention_is(
    processes: list[ServiceProcess],
) -> None:
    gateway = start_gateway(processes, "--attention", "127.0.0.1:1").wait_listening()
    reply = httpx.get(url(gateway, "/readyz"))
    assert reply.status_code == 503
    assert "127.0.0.1:1" in reply.text
    assert httpx.get(url(gateway, "/livez")).status_code == 200
    assert gateway.stop() == 0


def test_torch_is_never_imported(processes: list[ServiceProcess]) -> None:
    gateway = start_gateway(processes, "--attention", "127.0.0.1:1").wait_listening()
    maps = Path(f"/proc/{gateway.process.pid}/maps").read_text()
    assert "libtorch" not in maps
    assert "site-packages/numpy" not in maps
