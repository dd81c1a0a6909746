"""How much of a core does the gateway take for 64 streams at once, and how late are their tokens?

Three processes: a scripted attention service that sends each stream one token every 50 ms, the
gateway, and the clients, which read bare sockets. A token's text is the time at which it was sent.
Beside the gateway stands a relay, the least that Python can do: it reads the same streams and
writes each token as an event, without text, checks or HTTP. Tokens come spread over time and, as
from one step of an engine, all together.

With `ahead` the kernel runs the three processes before all others (Linux, needs root): on a shared
machine the delays otherwise tell how long it kept them waiting. It still gives others some time.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import orjson

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from expertmesh.cluster.cluster_plan import demo_model_dir
from gateway.text.model_files import ModelFiles, load_model_files
from protos import attention_pb2, attention_pb2_grpc
from rpc.channel import open_channel
from rpc.config import SERVER_OPTIONS

ROOT = Path(__file__).resolve().parents[2]
MODEL = demo_model_dir()
CONTEXT = 200_000
TOKEN_PAUSE_S = 0.05
TICK_S = 0.0005
NUM_TICKS = 2000
"""A token is one of so many words, the time in ticks. It comes round once a second: what is later
than that looks early."""
START_S = 60.0
RELAY_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def clock_words(model: ModelFiles) -> dict[str, int]:
    """The words that name times, in order, and their token ids."""
    words: dict[str, int] = {}
    for token_id in range(model.config.vocab_size):
        with contextlib.suppress(UnicodeDecodeError):
            text = model.tokenizer.token_bytes(token_id).decode()
            if text.isascii() and text.strip().isalnum():
                words.setdefault(text, token_id)
    return dict(list(words.items())[:NUM_TICKS])


class ScriptedAttention(attention_pb2_grpc.AttentionServicer):
    """Sends the time; all streams at once, or each in its own rhythm."""

    def __init__(self, together: bool) -> None:
        model = load_model_files(MODEL, ())
        self._vocab_size = model.config.vocab_size
        self._ids = list(clock_words(model).values())
        self._together = together

    async def GetStatus(
        self, request: attention_pb2.GetStatusRequest, context: Any
    ) -> attention_pb2.GetStatusResponse:
        return attention_pb2.GetStatusResponse(
            ready=True, max_model_len=CONTEXT, vocab_size=self._vocab_size
        )

    async def Generate(
        self, request: attention_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[attention_pb2.GenerateResponse]:
        due = (time.monotonic() // TOKEN_PAUSE_S + 1) * TOKEN_PAUSE_S
        if not self._together:
            due += random.random() * TOKEN_PAUSE_S
        for index in range(request.sampling.max_tokens):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due += TOKEN_PAUSE_S
            token_id = self._ids[int(time.monotonic() / TICK_S) % NUM_TICKS]
            tokens = attention_pb2.Tokens(index=index, token_ids=[token_id])
            yield attention_pb2.GenerateResponse(tokens=tokens)
        reason = attention_pb2.FINISH_REASON_LENGTH
        yield attention_pb2.GenerateResponse(finished=attention_pb2.Finished(reason=reason))


async def serve_attention(port: int, together: bool) -> None:
    server = grpc.aio.server(options=SERVER_OPTIONS)
    attention_pb2_grpc.add_AttentionServicer_to_server(ScriptedAttention(together), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


async def serve_relay(port: int, attention_port: int) -> None:
    tokenizer = load_model_files(MODEL, ()).tokenizer
    channel = open_channel(f"127.0.0.1:{attention_port}", tls=None, server_role="attention")
    stub = attention_pb2_grpc.AttentionStub(channel)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        writer.write(RELAY_HEAD)
        if head.startswith(b"post"):
            length = head.partition(b"content-length: ")[2].partition(b"\r")[0]
            body = orjson.loads(await reader.readexactly(int(length)))
            request = attention_pb2.GenerateRequest(prompt_token_ids=[1])
            request.sampling.max_tokens = body["max_tokens"]
            async for response in stub.Generate(request, wait_for_ready=True):
                for token_id in response.tokens.token_ids:
                    text = tokenizer.token_bytes(token_id).decode()
                    writer.write(b"data: " + orjson.dumps({"delta": {"content": text}}) + b"\n\n")
        writer.close()

    await (await asyncio.start_server(answer, "127.0.0.1", port)).serve_forever()


@dataclass(frozen=True, kw_only=True)
class Target:
    """One server between the attention service and the clients."""

    name: str
    path: str
    body: dict[str, Any]
    port: int
    pid: int


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def cpu_s(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def event_text(line: bytes) -> str:
    """The text that a line of an event stream brings, of any of the dialects."""
    if not line.startswith(b"data: {"):
        return ""
    event = orjson.loads(line[6:])
    delta = event.get("delta") or (event.get("choices") or [{}])[0].get("delta") or {}
    if isinstance(delta, str):
        return delta
    return str(
        delta.get("content") or delta.get("reasoning_content") or delta.get("thinking") or ""
    )


async def one_stream(target: Target, ticks: dict[str, int], delays_ms: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    body = json.dumps(target.body).encode()
    head = f"POST {target.path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    status = await reader.readline()
    if b" 200 " not in status:
        raise SystemExit(f"{target.name}: {status!r} {await reader.read()!r}")
    while line := await reader.readline():
        tick = ticks.get(event_text(line))
        if tick is not None:
            late = (time.monotonic() / TICK_S - tick) % NUM_TICKS
            delays_ms.append(late * TICK_S * 1e3)
    writer.close()


def wait_ready(port: int) -> None:
    give_up_s = time.monotonic() + START_S
    while time.monotonic() < give_up_s:
        with contextlib.suppress(OSError):  # not there yet, or not ready
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2).close()
            return
        time.sleep(0.1)
    raise SystemExit("a server did not become ready")


def run_ahead(pids: list[int]) -> None:
    """Have the kernel run these processes before all that have no such priority."""
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setscheduler(int(thread), os.SCHED_RR, os.sched_param(1))


@contextlib.contextmanager
def running_targets(num_tokens: int, *, together: bool, ahead: bool) -> Iterator[list[Target]]:
    attention, relay, gateway = free_port(), free_port(), free_port()
    here = [sys.executable, str(Path(__file__).resolve()), *(["--together"] if together else [])]
    here += ["--attention-port", str(attention)]
    there = [sys.executable, "-m", "gateway", "--model", str(MODEL), "--log-level", "error"]
    there += ["--attention", f"127.0.0.1:{attention}", "--listen", f"127.0.0.1:{gateway}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    commands = (here, [*here, "--relay-port", str(relay)], there)
    processes = [subprocess.Popen(command, env=environment) for command in commands]
    try:
        wait_ready(relay)
        wait_ready(gateway)
        _, relay_pid, gateway_pid = (process.pid for process in processes)
        if ahead:
            run_ahead([os.getpid(), *(process.pid for process in processes)])
        body = {"model": MODEL.name, "stream": True, "max_tokens": num_tokens}
        body["messages"] = [{"role": "user", "content": "hello"}]
        asked = {
            "relay": ("/", body),
            "chat": ("/v1/chat/completions", body),
            "messages": ("/v1/messages", {**body, "thinking": {"type": "adaptive"}}),
            "responses": (
                "/v1/responses",
                {**body, "input": "hello", "max_output_tokens": num_tokens},
            ),
        }
        servers = {"relay": (relay, relay_pid)}
        targets = []
        for name, (path, its_body) in asked.items():
            port, pid = servers.get(name, (gateway, gateway_pid))
            targets.append(Target(name=name, path=path, body=its_body, port=port, pid=pid))
        yield targets
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=30)


async def measure_target(target: Target, ticks: dict[str, int], num_streams: int) -> dict[str, Any]:
    """Everything counts, the beginning of all streams at one moment too."""
    delays_ms: list[float] = []
    before_s, start_s = cpu_s(target.pid), time.monotonic()
    await asyncio.gather(*(one_stream(target, ticks, delays_ms) for _ in range(num_streams)))
    used_s, took_s = cpu_s(target.pid) - before_s, time.monotonic() - start_s
    cuts = statistics.quantiles(delays_ms, n=100)
    return {
        "tokens": len(delays_ms),
        "cores": round(used_s / took_s, 3),
        "cpu_us_per_token": round(used_s / len(delays_ms) * 1e6),
        **{f"delay_ms_p{n}": round(cuts[n - 1], 1) for n in (50, 90, 99)},
    }


def measure_streams(num_streams: int, seconds: float, ahead: bool) -> dict[str, Any]:
    """Tokens spread over time, then all together; the relay and each API."""
    ticks = {word: tick for tick, word in enumerate(clock_words(load_model_files(MODEL, ())))}
    result: dict[str, Any] = {"streams": num_streams, "tokens_per_s_each": 1 / TOKEN_PAUSE_S}
    for shape in ("spread", "together"):
        num_tokens = int(seconds / TOKEN_PAUSE_S)
        result[shape] = {}
        with running_targets(num_tokens, together=shape == "together", ahead=ahead) as targets:
            for target in targets:
                measured = asyncio.run(measure_target(target, ticks, num_streams))
                result[shape][target.name] = measured
                print(f"{shape}, {target.name}: {measured}", file=sys.stderr)
    return result


def main() -> None:
    """One of the two servers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--attention-port", type=int, required=True)
    parser.add_argument("--relay-port", type=int)
    parser.add_argument("--together", action="store_true")
    arguments = parser.parse_args()
    if arguments.relay_port:
        asyncio.run(serve_relay(arguments.relay_port, arguments.attention_port))
    else:
        asyncio.run(serve_attention(arguments.attention_port, arguments.together))


if __name__ == "__main__":
    main()
