"""A gateway on a real HTTP server and free port, in front of scripted attention services.

Everything runs on one event loop in a thread of its own, so that tests can use blocking clients
and sockets.
"""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import openai

from gateway.app import DIALECTS
from gateway.config import GatewayConfig
from gateway.generate.pool import POLL_INTERVAL_S
from gateway.http.dialect import Dialect
from gateway.limits import Limits
from gateway.service import GatewayService
from protos import attention_pb2
from tests.support.gateway.fake_attention import FakeAttention, Script
from tests.support.gateway.model import CONTEXT, EOS, NAME, VOCAB_SIZE

Result = TypeVar("Result")

WAIT_S = 10.0


def ready_status(max_model_len: int = CONTEXT) -> attention_pb2.GetStatusResponse:
    return attention_pb2.GetStatusResponse(
        ready=True,
        max_model_len=max_model_len,
        vocab_size=VOCAB_SIZE,
        default_stop_token_ids=[EOS],
        attention_id="fake",
        dtype="float32",
        transport="in_process",
        version="0.1.0",
        batch_invariant=True,
    )


def unused_script(request: attention_pb2.GenerateRequest) -> Sequence[Any]:
    raise AssertionError("this test's requests must not reach the attention service")


class LoopThread:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result], timeout_s: float = WAIT_S) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)

    def close(self) -> None:
        async def cancel_all() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.run(cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT_S)
        self.loop.close()


class Harness:
    """One gateway with its fake services; `script` says what the model answers."""

    def __init__(
        self,
        loop: LoopThread,
        model_folder: Path,
        *,
        fakes: int = 1,
        limits: Limits | None = None,
        status: attention_pb2.GetStatusResponse | None = None,
        wait_ready: bool = True,
        poll_interval_s: float = POLL_INTERVAL_S,
        dialects: Sequence[Dialect] = DIALECTS,
        **config: Any,
    ):
        self._loop = loop
        self.fakes = [FakeAttention(unused_script, status or ready_status()) for _ in range(fakes)]
        self._grpc_servers = [loop.run(fake.serve()) for fake in self.fakes]
        config.setdefault("attention", tuple(f"127.0.0.1:{fake.port}" for fake in self.fakes))
        config.setdefault("listen", "127.0.0.1:0")
        config.setdefault("drain_s", 0.5)
        self.config = GatewayConfig(model=model_folder, served_model_name=(NAME, "alias"), **config)
        self.service = loop.run(self._start(limits, poll_interval_s, dialects))
        assert self.service.address is not None
        self.port = self.service.address.port
        self.base_url = f"http://127.0.0.1:{self.port}"
        if wait_ready:
            self.wait_for(lambda: self.get("/readyz").status_code == 200)

    async def _start(
        self, limits: Limits | None, poll_interval_s: float, dialects: Sequence[Dialect]
    ) -> GatewayService:
        service = GatewayService(
            self.config, limits=limits, poll_interval_s=poll_interval_s, dialects=dialects
        )
        await service.start()
        return service

    def close(self) -> None:
        self._loop.run(self.service.stop())
        for server in self._grpc_servers:
            self._loop.run(server.stop(None))

    def reset(self) -> None:
        """Undo what earlier tests did to a shared gateway."""
        self.script(unused_script)
        for fake in self.fakes:
            fake.requests.clear()
            fake.cancelled = fake.completed = 0
        for replica in self.service.gateway.pool.replicas:
            replica.not_ready_reason = None

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._loop.run(work)

    @property
    def fake(self) -> FakeAttention:
        return self.fakes[0]

    def script(self, script: Script) -> FakeAttention:
        for fake in self.fakes:
            fake.script = script
        return self.fake

    def client(self, **options: Any) -> openai.OpenAI:
        options.setdefault("api_key", "unused")
        return openai.OpenAI(
            base_url=f"{self.base_url}/v1",
            max_retries=0,
            timeout=WAIT_S,
            http_client=httpx.Client(verify=False),  # plain HTTP: no certificates to load
            **options,
        )

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.base_url + path, timeout=WAIT_S, verify=False, **options)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        """`body`: bytes as they are, everything else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json", **options.pop("headers", {})}
        return httpx.post(
            self.base_url + path,
            content=data,
            headers=headers,
            timeout=WAIT_S,
            verify=False,
            **options,
        )

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return httpx.request(method, self.base_url + path, timeout=WAIT_S, verify=False, **options)

    def chat(self, **fields: Any) -> httpx.Response:
        fields.setdefault("model", NAME)
        fields.setdefault("messages", [{"role": "user", "content": "hello"}])
        return self.post("/v1/chat/completions", fields)

    def metric(self, name: str) -> float:
        """Sum of a metric's samples over all labels."""
        return self.metric_of({}, name)

    def metric_of(self, headers: dict[str, str], name: str) -> float:
        """The same for a gateway that wants a key."""
        lines = self.get("/metrics", headers=headers).text.splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.split("{")[0].split(" ")[0] == f"expertmesh_{name}"
        )

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S)

    @staticmethod
    def wait_for(condition: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
        """Poll until the condition holds; fails after the timeout."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, "the condition did not become true in time"
            time.sleep(0.01)
