"""The gateway before real services: overload is refused politely, a storm leaves nothing behind."""

import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support.mesh import Mesh, ServiceProcess
from tests.support.places import DEMO_MODEL

USER: Any = [{"role": "user", "content": "Sort: pear, apple, fig"}]
STORM = 1000
AT_ONCE = 60

pytestmark = pytest.mark.slow


class Served:
    """A mesh of one pool with a gateway in front."""

    def __init__(self, mesh: Mesh, gateway: ServiceProcess):
        self.mesh = mesh
        self.gateway = gateway
        host, _, port = gateway.address.rpartition(":")
        self.host, self.port = host, int(port)

    @property
    def processes(self) -> list[ServiceProcess]:
        return [self.gateway, self.mesh.attention, *self.mesh.pools, self.mesh.router]

    def client(self) -> openai.OpenAI:
        url = f"http://{self.gateway.address}/v1"
        return openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60)

    def open_files(self) -> list[int]:
        return [len(os.listdir(f"/proc/{one.process.pid}/fd")) for one in self.processes]

    def load(self) -> dict[str, float]:
        """Everything that must be zero when nothing runs."""
        own = metrics(f"http://{self.gateway.address}/metrics")
        theirs = metrics(f"http://{self.mesh.attention.ops_address}/metrics")
        names = ("sequences_running", "sequences_waiting", "kv_cache_usage_ratio")
        return {
            **{name: own[f"expertmesh_requests_{name}"] for name in ("running", "waiting")},
            **{name: theirs[f"expertmesh_{name}"] for name in names},
        }


def metrics(url: str) -> dict[str, float]:
    lines = httpx.get(url, timeout=10).text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def wait_for(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.1)


def serve(state: Path, *attention_flags: str) -> Iterator[Served]:
    flags = ("--kv-memory", "64MiB", *attention_flags)
    with Mesh(DEMO_MODEL, [()], attention_flags=flags, state=state) as mesh:
        gateway = mesh.start(
            "gateway",
            "--model",
            str(DEMO_MODEL),
            "--served-model-name",
            "demo",
            "--router",
            mesh.router.address,
            "--listen",
            "127.0.0.1:0",
            "--max-concurrent",
            "500",
        ).wait_listening()
        gateway.wait_for(r" ready$")
        yield Served(mesh, gateway)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    yield from serve(tmp_path / "epoch")


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Served]:
    yield from serve(tmp_path / "epoch", "--max-running", "1", "--max-waiting", "3")


def test_overload_is_429_with_a_time_to_come_back_and_the_rest_is_served(narrow: Served) -> None:
    client = narrow.client()

    def ask(number: int) -> str | openai.RateLimitError:
        try:
            reply = client.chat.completions.create(
                model="demo",
                messages=USER,
                max_tokens=60,
                stream=False,
                extra_body={"ignore_eos": True},
            )
        except openai.RateLimitError as refused:
            return refused
        return reply.choices[0].finish_reason

    with ThreadPoolExecutor(40) as threads:
        answers = list(threads.map(ask, range(40)))
    refusals = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
    assert refusals
    assert len(refusals) < 40
    assert {answer for answer in answers if isinstance(answer, str)} == {"length"}
    for refusal in refusals:
        assert 1 <= int(refusal.response.headers["retry-after"]) <= 60
        assert refusal.code == "overloaded"
    wait_for(lambda: not any(narrow.load().values()))
    wait_for(lambda: ask(0) == "length")


async def drop(served: Served, chance: random.Random) -> None:
    """One request whose client leaves: at once, while it waits, or in the middle of the answer."""
    stream = chance.random() < 0.7
    question = f"{chance.randrange(100)} Sort: pear, apple, fig " * chance.choice((1, 1, 20))
    messages = [{"role": "user", "content": question}]
    fields = {
        "stream": stream,
        "max_tokens": 300,
        "ignore_eos": True,
        "n": chance.choice((1, 1, 3)),
    }
    body = json.dumps({"model": "demo", "messages": messages, **fields}).encode()
    reader, writer = await asyncio.open_connection(served.host, served.port)
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    sent = head.encode() + body
    if chance.random() < 0.05:
        sent = sent[: chance.randrange(len(sent))]
    writer.write(sent)
    try:
        async with asyncio.timeout(chance.choice((0.01, 0.3, 1.0, 2.0)) * chance.random()):
            while await reader.read(4096):
                pass
    except TimeoutError:
        pass
    if chance.random() < 0.5:
        writer.transport.abort()
    writer.close()


async def storm(served: Served, count: int) -> None:
    chance = random.Random(7)
    places = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with places:
            await drop(served, chance)

    await asyncio.gather(*(one() for _ in range(count)))


@pytest.mark.timeout(180)
def test_a_thousand_clients_that_leave_leave_nothing_behind(served: Served) -> None:
    client = served.client()
    first = client.chat.completions.create(model="demo", messages=USER, temperature=0)
    asyncio.run(storm(served, 200))
    wait_for(lambda: not any(served.load().values()))
    settled = served.open_files()
    asyncio.run(storm(served, STORM))
    wait_for(lambda: not any(served.load().values()))
    wait_for(
        lambda: all(now <= was + 3 for now, was in zip(served.open_files(), settled, strict=True))
    )
    again = client.chat.completions.create(model="demo", messages=USER, temperature=0)
    assert again.choices[0].message.content == first.choices[0].message.content
    counted = metrics(f"http://{served.gateway.address}/metrics")
    assert sum(v for k, v in counted.items() if "client_disconnects_total" in k) > STORM // 2
    for process in served.processes:
        assert not [line for line in process.lines if "Traceback" in line or " ERROR " in line]
