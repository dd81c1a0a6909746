"""Of two attention service processes one is killed, stopped or restarted: clients do not notice."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.gateway.processes import start_gateway, url
from tests.support.mesh import PORTS, ServiceProcess
from tests.support.places import DEMO_MODEL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

TOKENS = 150
WAIT_S = 60.0
PROMPTS = [
    "Sort: pear, apple, fig",
    "Count to one hundred:",
    "The weather in Paris is",
    "A story about a lemon and a fox:",
]


def start_attention(
    processes: list[ServiceProcess], *flags: str, listen: str = "127.0.0.1:0"
) -> ServiceProcess:
    attention = ServiceProcess(
        "attention_svc",
        [
            "--listen",
            listen,
            "--ops-listen",
            "127.0.0.1:0",
            "--model",
            str(DEMO_MODEL),
            "--transport",
            "in_process",
            "--dtype",
            "f32",
            "--threads",
            "1",
            "--kv-memory",
            "32MiB",
            *flags,
        ],
    )
    processes.append(attention)
    return attention


class Stream(threading.Thread):
    """One streamed completion, read on a thread of its own; token ids as the client got them."""

    def __init__(self, gateway: ServiceProcess, number: int, **fields: Any):
        super().__init__(daemon=True)
        sampling = {"temperature": 0} if number % 2 else {"temperature": 1.0, "seed": number}
        self._body = {
            "model": "demo",
            "prompt": PROMPTS[number // 2 % len(PROMPTS)],
            "stream": True,
            "max_tokens": TOKENS,
            "ignore_eos": True,
            "return_token_ids": True,
            "logprobs": 1,
            "stream_options": {"include_usage": True},
            "presence_penalty": 0.3,
            **sampling,
            **fields,
        }
        self._url = url(gateway, "/v1/completions")
        self.ids: list[int] = []
        self.num_logprobs = 0
        self.errors: list[Any] = []
        self.usage: Any = None
        self.finish_reasons: list[str] = []
        self.done = False
        self.status = 0
        self.start()

    def run(self) -> None:
        with httpx.stream("POST", self._url, json=self._body, timeout=WAIT_S) as reply:
            self.status = reply.status_code
            for line in reply.iter_lines():
                if line == "data: [DONE]":
                    self.done = True
                elif line.startswith("data: "):
                    self._take(json.loads(line.removeprefix("data: ")))

    def _take(self, event: Any) -> None:
        if "error" in event:
            self.errors.append(event["error"])
            return
        self.usage = event.get("usage") or self.usage
        for choice in event["choices"]:
            self.ids += choice.get("token_ids") or []
            self.num_logprobs += len((choice["logprobs"] or {}).get("tokens", ()))
            self.finish_reasons += [choice["finish_reason"]] if choice["finish_reason"] else []

    def wait_for_tokens(self, count: int) -> None:
        wait_for(lambda: len(self.ids) >= count or not self.is_alive())

    def result(self) -> list[int]:
        self.join(WAIT_S)
        assert not self.is_alive()
        assert (self.status, self.errors, self.done) == (200, [], True)
        assert self.finish_reasons == ["length"]
        assert self.usage["completion_tokens"] == len(self.ids) == TOKENS == self.num_logprobs
        return self.ids


def wait_for(condition: Any) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def metric(gateway: ServiceProcess, start: str) -> float:
    lines = httpx.get(url(gateway, "/metrics")).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))


def migrations(gateway: ServiceProcess) -> float:
    return metric(gateway, "expertmesh_gateway_migrations_total{")


@pytest.fixture
def pair(processes: list[ServiceProcess]) -> list[ServiceProcess]:
    started = [start_attention(processes, "--grace-s", "20") for _ in range(2)]
    return [one.wait_listening() for one in started]


@pytest.fixture
def gateway(processes: list[ServiceProcess], pair: list[ServiceProcess]) -> ServiceProcess:
    flags = [flag for one in pair for flag in ("--attention", one.address)]
    gateway = start_gateway(processes, *flags).wait_listening()
    wait_for(lambda: metric(gateway, "expertmesh_attention_replicas_ready ") == 2)
    return gateway


def undisturbed(gateway: ServiceProcess) -> list[list[int]]:
    streams = [Stream(gateway, number) for number in range(8)]
    return [stream.result() for stream in streams]


def test_a_killed_service_costs_no_token_and_its_successor_is_used(
    processes: list[ServiceProcess], pair: list[ServiceProcess], gateway: ServiceProcess
) -> None:
    expected = undisturbed(gateway)
    streams = [Stream(gateway, number) for number in range(8)]
    for stream in streams:
        stream.wait_for_tokens(20)
    pair[0].kill()
    after = Stream(gateway, 3)  # to the survivor at once
    assert [stream.result() for stream in streams] == expected
    assert after.result() == expected[3]
    assert 1 <= migrations(gateway) <= 8
    pair[0] = start_attention(processes, listen=pair[0].address).wait_listening()
    wait_for(lambda: metric(gateway, "expertmesh_attention_replicas_ready ") == 2)
    streams = [Stream(gateway, number) for number in range(8)]
    for stream in streams:
        stream.wait_for_tokens(20)
    pair[1].kill()
    assert [stream.result() for stream in streams] == expected


def test_streams_leave_a_service_that_stops_while_another_is_ready(
    pair: list[ServiceProcess], gateway: ServiceProcess
) -> None:
    expected = undisturbed(gateway)
    streams = [Stream(gateway, number) for number in range(8)]
    for stream in streams:
        stream.wait_for_tokens(10)
    pair[0].process.terminate()
    assert pair[0].process.wait(10) == 0  # before its grace period ends
    assert [stream.result() for stream in streams] == expected
    assert migrations(gateway) >= 1


def test_the_only_service_lets_its_streams_finish(
    pair: list[ServiceProcess], gateway: ServiceProcess
) -> None:
    pair[1].stop()
    wait_for(lambda: metric(gateway, "expertmesh_attention_replicas_ready ") == 1)
    stream = Stream(gateway, 1)
    stream.wait_for_tokens(5)
    pair[0].process.terminate()
    ready_url = f"http://{pair[0].ops_address}/readyz"
    wait_for(lambda: httpx.get(ready_url).status_code == 503)  # as long as it has this stream
    stream.result()
    assert pair[0].process.wait(10) == 0
    assert migrations(gateway) == 0


def test_a_second_signal_ends_streams_with_a_reason(
    pair: list[ServiceProcess], gateway: ServiceProcess
) -> None:
    pair[1].stop()
    wait_for(lambda: metric(gateway, "expertmesh_attention_replicas_ready ") == 1)
    stream = Stream(gateway, 1, max_tokens=900)
    stream.wait_for_tokens(5)
    pair[0].process.terminate()
    pair[0].wait_for(r"stopping")
    pair[0].process.terminate()
    assert pair[0].process.wait(10) == 0
    stream.join(WAIT_S)
    assert not stream.done
    (error,) = stream.errors
    assert (error["code"], error["type"]) == ("not_ready", "service_unavailable_error")


def test_structured_output_goes_on_where_it_was(
    pair: list[ServiceProcess], gateway: ServiceProcess
) -> None:
    schema = {
        "type": "object",
        "properties": {
            "words": {
                "type": "array",
                "items": {"enum": ["x", "yy"]},
                "minItems": 40,
                "maxItems": 50,
            }
        },
        "required": ["words"],
        "additionalProperties": False,
    }
    fields = {"structured_outputs": {"json": schema}, "ignore_eos": False, "max_tokens": 600}
    whole = Stream(gateway, 2, **fields)
    whole.join(WAIT_S)
    moved = Stream(gateway, 2, **fields)
    moved.wait_for_tokens(10)
    # It is where its prompt was cached; which that is, only the services know.
    busy = max(pair, key=running)
    busy.kill()
    moved.join(WAIT_S)
    assert (moved.errors, moved.done, moved.finish_reasons) == ([], True, ["stop"])
    assert moved.ids == whole.ids
    assert migrations(gateway) == 1


def running(attention: ServiceProcess) -> float:
    page = httpx.get(f"http://{attention.ops_address}/metrics").text
    line = next(one for one in page.splitlines() if one.startswith("expertmesh_sequences_running "))
    return float(line.rsplit(" ", 1)[1])


def test_a_rolling_restart_behind_a_router_costs_no_token(
    processes: list[ServiceProcess], tmp_path: Path
) -> None:
    def start(module: str, *flags: str) -> ServiceProcess:
        processes.append(ServiceProcess(module, [*PORTS, *flags]))
        return processes[-1]

    router = start("router_svc", "--state", str(tmp_path / "epoch")).wait_listening()
    member = (
        "--router",
        router.address,
        "--model",
        str(DEMO_MODEL),
        "--dtype",
        "f32",
        "--threads",
        "1",
    )
    start("expert_svc", *member)

    def attention() -> ServiceProcess:
        return start("attention_svc", *member, "--kv-memory", "16MiB")

    pair = [attention(), attention()]
    gateway = start_gateway(processes, "--router", router.address).wait_listening()
    wait_for(lambda: metric(gateway, "expertmesh_attention_replicas_ready ") == 2)
    expected = [Stream(gateway, number).result() for number in range(4)]
    streams = [Stream(gateway, number) for number in range(4)]
    for one in pair:
        for stream in streams:
            stream.wait_for_tokens(5)
        assert one.stop(30) == 0
        attention()
        wait_for(lambda: metric(gateway, "expertmesh_attention_replicas_ready ") == 2)
    assert [stream.result() for stream in streams] == expected
    assert migrations(gateway) >= 1
    assert httpx.get(f"http://{router.ops_address}/readyz").status_code == 200
    assert router.stop() == 0
