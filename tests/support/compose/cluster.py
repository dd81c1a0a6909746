"""deploy/compose.yaml, started, scaled, broken and taken down by a test."""

import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from tests.support.compose.engine import PROJECT_PREFIX, docker
from tests.support.compose.images import PROMETHEUS, ROOT, SERVICE

UP_S = 180.0
SOON_S = 120.0
"""Bound for what takes seconds on an idle machine."""

Seen = TypeVar("Seen")


def eventually(look: Callable[[], Seen | None], what: str, timeout_s: float = SOON_S) -> Seen:
    """Poll until `look` returns something true; fails saying `what` did not come."""
    deadline = time.monotonic() + timeout_s
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(1.0)
    return seen


class Cluster:
    """Context manager around one compose project; takes down what it brought up."""

    def __init__(self) -> None:
        self.api_key = secrets.token_hex(16)
        http, prometheus = _free_ports(2)
        self.url = f"http://127.0.0.1:{http}"
        self._prometheus_url = f"http://127.0.0.1:{prometheus}"
        self._project = f"{PROJECT_PREFIX}{os.getpid()}"
        self._environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self._project,
            "EXPERTMESH_IMAGE": SERVICE,
            "PROMETHEUS_IMAGE": PROMETHEUS,
            "EXPERTMESH_API_KEY": self.api_key,
            "EXPERTMESH_HTTP": f"127.0.0.1:{http}",
            "PROMETHEUS_HTTP": f"127.0.0.1:{prometheus}",
            "EXPERTMESH_THREADS": "1",
            "EXPERTMESH_KV_MEMORY": "64MiB",
        }

    def __enter__(self) -> "Cluster":
        try:
            self.compose("up", "--detach", "--no-build")
            eventually(self._is_ready, "the gateway is ready", UP_S)
        except BaseException:
            print(self.compose("logs", "--no-color", "--tail=30"))
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "10")

    def compose(self, *arguments: str, timeout_s: float = UP_S) -> str:
        """Run docker-compose on this project; what it printed."""
        done = subprocess.run(
            ["docker-compose", "--file", str(ROOT / "deploy" / "compose.yaml"), *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        assert done.returncode == 0, f"{arguments}:\n{done.stdout}{done.stderr}"[-4000:]
        return done.stdout

    def containers(self, service: str) -> list[str]:
        """Ids of the running containers of a service."""
        return docker(
            *("ps", "--quiet", "--no-trunc"),
            *("--filter", f"label=com.docker.compose.project={self._project}"),
            *("--filter", f"label=com.docker.compose.service={service}"),
        ).split()

    def scale_pools(self, count: int) -> None:
        """Only what a person would type."""
        self.compose(
            "up", "--detach", "--no-build", "--no-recreate", "--scale", f"expert-svc={count}"
        )

    def pools(self) -> set[str]:
        """The pool ids that the running containers go by."""
        return {f"expert-{container[:12]}" for container in self.containers("expert-svc")}

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Prometheus' present answer: {"metric": labels, "value": [time, text]} each."""
        answer = self._ask("/api/v1/query", query=expression)
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    def number(self, expression: str) -> float:
        """The one value of an expression; 0 when there is no series."""
        return sum(float(sample["value"][1]) for sample in self.query(expression))

    def targets(self, job: str) -> dict[str, str]:
        """Prometheus' own view: instance -> health."""
        active = self._ask("/api/v1/targets", state="active")["data"]["activeTargets"]
        return {
            target["labels"]["instance"]: target["health"]
            for target in active
            if target["labels"]["job"] == job
        }

    def sees_pools(self, pools: set[str]) -> bool:
        """Whether Prometheus scrapes exactly these pools."""
        return self.targets("pool") == dict.fromkeys(pools, "up")

    def complete(self, max_tokens: int, on_text: Callable[[int], None] | None = None) -> str:
        """A long greedy answer, streamed; `on_text` is told how many pieces have come."""
        body = {
            "model": self.model,
            "prompt": "Count: one, two, three,",
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
        text, finished, count = "", None, 0
        with httpx.stream(
            "POST", f"{self.url}/v1/completions", json=body, headers=self._headers, timeout=120
        ) as answer:
            assert answer.status_code == 200, answer.read()
            for line in answer.iter_lines():
                data = line.removeprefix("data: ")
                if line.startswith("data: ") and data != "[DONE]":
                    event = json.loads(data)
                    assert "choices" in event, f"an error in mid-answer: {event}"
                    for choice in event["choices"]:
                        text += choice["text"]
                        finished = choice["finish_reason"] or finished
                    count += 1
                    if on_text is not None:
                        on_text(count)
        assert finished == "length", f"ended by {finished!r}"
        return text

    def chat(self, question: str) -> str:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
        }
        answer = httpx.post(
            f"{self.url}/v1/chat/completions", json=body, headers=self._headers, timeout=120
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["message"]["content"]

    @property
    def model(self) -> str:
        models = httpx.get(f"{self.url}/v1/models", headers=self._headers, timeout=30).json()
        return models["data"][0]["id"]

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"}

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def _ask(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(self._prometheus_url + path, params=parameters, timeout=30)
        return answer.json()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
