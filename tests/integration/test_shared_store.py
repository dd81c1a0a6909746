"""Two gateways on one PostgreSQL under load, one of them killed: no given answer is lost."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.gateway.postgres import Server, running_server
from tests.support.gateway.processes import start_attention, start_gateway, url
from tests.support.mesh import ServiceProcess

pytestmark = pytest.mark.slow

CLIENTS = 6
LOAD_S = 12.0
WAIT_S = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as found:
        yield found


@pytest.fixture
def start(
    server: Server, processes: list[ServiceProcess], tmp_path: Path
) -> Callable[[], ServiceProcess]:
    """A gateway on the shared store; all use one attention service."""
    attention = start_attention(processes, "--max-model-len", "2048")
    secret = tmp_path / "url"
    secret.write_text(server.url() + "\n")
    secret.chmod(0o600)
    shared = ("--response-store", "postgres", "--response-store-url-file", str(secret))

    def start_one() -> ServiceProcess:
        gateway = start_gateway(processes, "--attention", attention.address, *shared)
        gateway.wait_listening().wait_for(r" ready$")
        return gateway

    return start_one


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "demo", "input": "Sort: pear, apple", "max_output_tokens": 4, **fields}


class Client(threading.Thread):
    """Continues its conversation turn by turn, through one gateway and the other in turn."""

    def __init__(self, gateways: list[ServiceProcess], number: int, until_s: float):
        super().__init__(daemon=True)
        self._gateways = gateways
        self._number = number
        self._until_s = until_s
        self.given: list[dict[str, Any]] = []
        """The answers that arrived whole and said that they were kept."""
        self.wrong: list[str] = []

    def run(self) -> None:
        last: str | None = None
        turn = self._number
        while time.monotonic() < self._until_s:
            turn += 1
            if turn % 8 == 0:
                last = None
            asked = body() if last is None else body(previous_response_id=last)
            gateway = self._gateways[turn % 2]
            try:
                reply = httpx.post(url(gateway, "/v1/responses"), json=asked, timeout=WAIT_S)
            except httpx.HTTPError:  # this one was killed
                continue
            if reply.status_code != 200 or not reply.json()["store"]:
                self.wrong.append(reply.text)
                continue
            last = reply.json()["id"]
            self.given.append(reply.json())


def test_no_kept_answer_is_lost_when_a_gateway_is_killed(
    start: Callable[[], ServiceProcess],
) -> None:
    gateways = [start(), start()]
    clients = [Client(gateways, number, time.monotonic() + LOAD_S) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    time.sleep(LOAD_S / 2)
    gateways[0].kill()
    for client in clients:
        client.join(LOAD_S + WAIT_S)
        assert not client.is_alive()
    given = [answer for client in clients for answer in client.given]
    assert len(given) > CLIENTS
    assert [text for client in clients for text in client.wrong] == []
    with httpx.Client(timeout=WAIT_S) as http:
        for answer in given:
            kept = http.get(url(gateways[1], f"/v1/responses/{answer['id']}"))
            assert (kept.status_code, kept.json()) == (200, answer)
        for client in clients:
            if client.given:
                more = body(previous_response_id=client.given[-1]["id"])
                reply = http.post(url(gateways[1], "/v1/responses"), json=more)
                assert reply.status_code == 200, reply.text


def test_what_a_killed_gateway_was_making_in_the_background_has_failed_for_the_others(
    start: Callable[[], ServiceProcess],
) -> None:
    gateways = [start(), start()]
    asked = body(background=True, max_output_tokens=2000, input="Count: " + "a b c " * 20)
    # Many at once, and nothing is asked before their gateway dies: some are still being made then.
    ids = [
        httpx.post(url(gateways[0], "/v1/responses"), json=asked, timeout=WAIT_S).json()["id"]
        for _ in range(12)
    ]
    gateways[0].kill()
    deadline_s = time.monotonic() + 45
    while time.monotonic() < deadline_s:
        replies = [httpx.get(url(gateways[1], f"/v1/responses/{id}"), timeout=WAIT_S) for id in ids]
        statuses = [reply.json()["status"] for reply in replies]
        if "in_progress" not in statuses:
            break
        time.sleep(1)
    assert "failed" in statuses
    assert set(statuses) <= {"failed", "completed", "incomplete"}
