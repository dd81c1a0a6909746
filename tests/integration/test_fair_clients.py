"""One key's costly requests beside another's cheap ones, on real services; judged by order."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from tests.support.gateway.processes import start_attention, start_gateway, url
from tests.support.mesh import ServiceProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

BUSY, OTHER = "the-busy-client", "the-other-client"
CHOICE = {
    "model": "demo",
    "prompt": "Yes or no?",
    "max_tokens": 4,
    "structured_outputs": {"choice": ["yes", "no"]},
}
WAIT_S = 120.0


def costly(number: int) -> dict[str, Any]:
    """A new schema each time; compiling any of them costs more than is allowed."""
    patterns = [{"type": "string", "pattern": f".*{c}.*{number}"} for c in "abcdefghijklmnopqrst"]
    return {**CHOICE, "structured_outputs": {"json": {"allOf": patterns}}}


@pytest.fixture(scope="module")
def services() -> Iterator[list[ServiceProcess]]:
    started: list[ServiceProcess] = []
    attention = start_attention(started)
    keys = ("--api-key", BUSY, "--api-key", OTHER)
    gateway = start_gateway(started, "--attention", attention.address, *keys)
    gateway.wait_listening().wait_for(r" ready$")
    yield started
    for process in reversed(started):
        assert process.stop() == 0


def ask(gateway: ServiceProcess, body: dict[str, Any], key: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(url(gateway, "/v1/completions"), json=body, headers=headers, timeout=WAIT_S)


def test_a_choice_is_answered_while_another_key_waits_for_its_costly_schemas(
    services: list[ServiceProcess],
) -> None:
    attention, gateway = services
    answered: list[int] = []
    lock = threading.Lock()

    def send(number: int) -> httpx.Response:
        reply = ask(gateway, costly(number), BUSY)
        with lock:
            answered.append(number)
        return reply

    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(send, number) for number in range(8)]
        children = psutil.Process(attention.process.pid).children
        waited = threading.Event()
        while not children() and not waited.wait(0.01):  # the first is being compiled
            pass
        for _ in range(3):
            reply = ask(gateway, CHOICE, OTHER)
            assert reply.status_code == 200
            assert reply.json()["choices"][0]["text"] in ("yes", "no")
        assert len(answered) < 8, "the others waited for all of them"
        replies = [one.result() for one in waiting]
    assert {reply.status_code for reply in replies} == {400}
    assert all("simplify" in reply.json()["error"]["message"] for reply in replies)
    again = ask(gateway, costly(0), OTHER)
    assert again.json() == replies[0].json()
    assert ask(gateway, CHOICE, BUSY).status_code == 200


def test_one_request_with_a_costly_grammar_for_128_choices_costs_one_check(
    services: list[ServiceProcess],
) -> None:
    _, gateway = services
    body = {**costly(99), "prompt": ["x"] * 16, "n": 8}
    reply = ask(gateway, body, BUSY)
    assert reply.status_code == 400
    assert json.dumps(reply.json()).count("simplify") == 1
