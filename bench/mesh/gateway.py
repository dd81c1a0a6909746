"""What does the gateway itself cost? An agent's prompt, a chunk of an answer, 64 streams at once.

1. `prompt`: the milliseconds in which a Claude Code-sized request (24 tools, about 32,000 tokens)
   is parsed, rendered and tokenised, the first time and with one more turn.
2. `chunk`: the microseconds in which one token becomes events, for each API.
3. `streams`: a gateway process between a scripted attention service, which sends a token of each
   stream every 50 ms, and clients: the gateway's share of a core, and how long a token takes from
   the service to its client.

No model computes anything. Progress on standard error; the last line on standard output is JSON.

    .venv/bin/python bench/mesh/gateway.py [--streams 64] [--seconds 20] [--rounds 7]
"""

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from expertmesh.cluster.cluster_plan import demo_model_dir
from expertmesh.cluster.machine import usable_cores
from gateway.anthropic.history import chat_messages
from gateway.anthropic.messages import NAMES
from gateway.anthropic.reply import MessageReply
from gateway.anthropic.tools import function_tools
from gateway.generate.choice_streams import Choice, Update
from gateway.generate.stream_state import StreamState
from gateway.http.strict_json import parse_object
from gateway.limits import Limits
from gateway.openai.chat_reply import ChatReply
from gateway.openai.models import StreamOptions
from gateway.openai.replies import ReplyHead
from gateway.responses.reply import ResponseReply
from gateway.text.choice_text import PlainText
from gateway.text.model_files import load_model_files
from gateway.text.prompt_encoder import PromptEncoder
from moe_model.chat.events import ContentDelta
from protos import attention_pb2, attention_pb2_grpc
from rpc.config import SERVER_OPTIONS

ROOT = Path(__file__).resolve().parents[2]
MODEL = demo_model_dir()
TOKEN_PAUSE_S = 0.05
CHUNKS = 4000
STAMP_CHARS = 9
START_S = 60.0
CONTEXT = 200_000
WORDS = """
the of model agent file path command run tool read write edit when you should never always use
output input task code test error line number string return value list project user
"""


def prose(num_chars: int, rng: random.Random) -> str:
    words, text = WORDS.split(), ""
    while len(text) < num_chars:
        text += rng.choice(words) + rng.choice((" ", " ", " ", ". ", ", ", "\n", "`", " (x) "))
    return text[:num_chars]


def agents_body() -> dict[str, Any]:
    """A first request of Claude Code's shape and size."""
    rng = random.Random(1)
    properties = {f"p{i}": {"type": "string", "description": prose(100, rng)} for i in range(6)}
    schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return {
        "model": "m",
        "max_tokens": 32_000,
        "system": [{"type": "text", "text": prose(5_600, rng)}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Print hello"}]},
            {"role": "system", "content": prose(20_000, rng)},
        ],
        "tools": [
            {"name": f"Tool{i}", "description": prose(1_500, rng), "input_schema": schema}
            for i in range(24)
        ],
    }


def one_turn_more(body: dict[str, Any]) -> dict[str, Any]:
    call = {"type": "tool_use", "id": "a", "name": "Tool1", "input": {"p1": "x"}}
    result = {"type": "tool_result", "tool_use_id": "a", "content": prose(2_000, random.Random(2))}
    turns = [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    return {**body, "messages": [*body["messages"], *turns]}


def measure_prompt(rounds: int) -> dict[str, Any]:
    model, limits = load_model_files(MODEL, ()), Limits()
    first = json.dumps(agents_body()).encode()
    second = json.dumps(one_turn_more(agents_body())).encode()

    def prepare(encoder: PromptEncoder, raw: bytes) -> tuple[float, int]:
        start = time.perf_counter()
        body = parse_object(raw, limits, NAMES.messages)
        prompt = asyncio.run(
            encoder.chat(
                chat_messages(body.get("system"), body["messages"]),
                function_tools(body["tools"]),
                names=NAMES,
                tenant="",
                body_bytes=0,
                max_model_len=CONTEXT,
            )
        )
        return (time.perf_counter() - start) * 1e3, len(prompt.ids)

    firsts, seconds, tokens = [], [], 0
    for _ in range(rounds):
        encoder = PromptEncoder(model, limits)
        took, tokens = prepare(encoder, first)
        firsts.append(took)
        seconds.append(prepare(encoder, second)[0])
        encoder.close()
    return {
        "tokens": tokens,
        "body_bytes": len(first),
        "first_ms": round(statistics.median(firsts), 1),
        "second_turn_ms": round(statistics.median(seconds), 1),
    }


def measure_chunk(rounds: int) -> dict[str, Any]:
    model = load_model_files(MODEL, ())
    state = StreamState(request=attention_pb2.GenerateRequest(prompt_token_ids=[1]))
    text = PlainText(model.tokenizer, stops=())
    choice = Choice(index=0, state=state, text=text, stop_ids=frozenset(), vocab_size=1)
    head = ReplyHead(
        id="x",
        object="chat.completion.chunk",
        model="m",
        choices=[choice],
        prompts=1,
        tokenise_s=0.0,
        with_timings=False,
        stream_options=StreamOptions(),
    )
    replies: dict[str, Callable[[], Any]] = {
        "chat": lambda: ChatReply(head, model, with_logprobs=False),
        "messages": lambda: MessageReply(
            choice,
            model="m",
            asked_tokens=9,
            show_thinking=True,
            thinking_text=True,
            sign=lambda thinking: "",
        ),
        "responses": lambda: ResponseReply(choice, model, head={}, tools={}),
    }
    updates = [Update(0, [ContentDelta(" word")]) for _ in range(CHUNKS)]
    took: dict[str, list[float]] = {name: [] for name in replies}
    for _ in range(rounds):
        for name, make in replies.items():
            reply = make()
            start = time.perf_counter()
            for update in updates:
                reply.chunks(update)
            took[name].append((time.perf_counter() - start) / CHUNKS * 1e6)
    micros = {name: statistics.median(values) for name, values in took.items()}
    others = [name for name in micros if name != "chat"]
    return {
        **{f"{name}_us": round(value, 2) for name, value in micros.items()},
        **{f"{name}_ratio": round(micros[name] / micros["chat"], 3) for name in others},
    }


class ScriptedAttention(attention_pb2_grpc.AttentionServicer):
    """Sends each stream a message every 50 ms: the clock's last digits, so that a client can say
    how long it took."""

    def __init__(self) -> None:
        model = load_model_files(MODEL, ())
        self._vocab_size = model.config.vocab_size
        self._ids = {digit: model.tokenizer.encode_text(digit)[0] for digit in "0123456789 "}

    async def GetStatus(
        self, request: attention_pb2.GetStatusRequest, context: Any
    ) -> attention_pb2.GetStatusResponse:
        return attention_pb2.GetStatusResponse(
            ready=True, max_model_len=CONTEXT, vocab_size=self._vocab_size
        )

    async def Generate(
        self, request: attention_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[attention_pb2.GenerateResponse]:
        due = time.monotonic() + random.random() * TOKEN_PAUSE_S
        for index in range(0, request.sampling.max_tokens, STAMP_CHARS):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due += TOKEN_PAUSE_S
            ids = [self._ids[character] for character in stamp_now()]
            tokens = attention_pb2.Tokens(index=index, token_ids=ids)
            yield attention_pb2.GenerateResponse(tokens=tokens)
        reason = attention_pb2.FINISH_REASON_LENGTH
        yield attention_pb2.GenerateResponse(finished=attention_pb2.Finished(reason=reason))


def stamp_now() -> str:
    """The clock in tenths of a millisecond, its last eight digits, and a space."""
    return f"{int(time.monotonic() * 1e4) % 10**8:08d} "


async def serve_attention(port: int) -> None:
    server = grpc.aio.server(options=SERVER_OPTIONS)
    attention_pb2_grpc.add_AttentionServicer_to_server(ScriptedAttention(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def cpu_s(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def one_stream(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], delays_ms: list[float]
) -> None:
    async with client.stream("POST", path, json=body) as reply:
        reply.raise_for_status()
        async for line in reply.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            delta = event.get("delta") or (event.get("choices") or [{}])[0].get("delta") or {}
            delta = {"content": delta} if isinstance(delta, str) else delta
            text = delta.get("content") or delta.get("reasoning_content") or delta.get("thinking")
            if text and text.strip().isdigit():
                now = int(time.monotonic() * 1e4) % 10**8
                delays_ms.append((now - int(text)) % 10**8 / 10)


async def wait_ready(client: httpx.AsyncClient) -> None:
    give_up_s = time.monotonic() + START_S
    while time.monotonic() < give_up_s:
        try:
            if (await client.get("/readyz")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    raise SystemExit("the gateway did not become ready")


def start_processes() -> tuple[int, list[subprocess.Popen[bytes]]]:
    """The gateway's port; the scripted attention service and the gateway."""
    attention_port, port = free_port(), free_port()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    here = [sys.executable, str(Path(__file__).resolve()), "--attention-port", str(attention_port)]
    gateway = [sys.executable, "-m", "gateway", "--model", str(MODEL), "--log-level", "error"]
    gateway += ["--attention", f"127.0.0.1:{attention_port}", "--listen", f"127.0.0.1:{port}"]
    return port, [subprocess.Popen(command, env=environment) for command in (here, gateway)]


async def measure_streams(num_streams: int, seconds: float) -> dict[str, Any]:
    port, processes = start_processes()
    pid = processes[1].pid
    result: dict[str, Any] = {"streams": num_streams, "tokens_per_s_each": 1 / TOKEN_PAUSE_S}
    num_tokens = int(seconds / TOKEN_PAUSE_S) * STAMP_CHARS
    plain = {"model": MODEL.name, "stream": True, "max_tokens": num_tokens}
    plain["messages"] = [{"role": "user", "content": "hello"}]
    bodies = {
        "chat": ("/v1/chat/completions", plain),
        "messages": ("/v1/messages", {**plain, "thinking": {"type": "adaptive"}}),
        "responses": (
            "/v1/responses",
            {**plain, "input": "hello", "max_output_tokens": num_tokens},
        ),
    }
    try:
        limits = httpx.Limits(max_connections=None)
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
            await wait_ready(client)
            for name, (path, body) in bodies.items():
                delays_ms: list[float] = []
                before_s, start_s = cpu_s(pid), time.monotonic()
                work = (one_stream(client, path, body, delays_ms) for _ in range(num_streams))
                await asyncio.gather(*work)
                took_s = time.monotonic() - start_s
                cuts = statistics.quantiles(delays_ms, n=100)
                result[name] = {
                    "tokens": len(delays_ms),
                    "gateway_cores": round((cpu_s(pid) - before_s) / took_s, 3),
                    "delay_ms_p50": round(cuts[49], 1),
                    "delay_ms_p99": round(cuts[98], 1),
                }
                print(f"{name}: {result[name]}", file=sys.stderr)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=30)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--attention-port", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.attention_port:
        asyncio.run(serve_attention(arguments.attention_port))
        return
    result: dict[str, Any] = {"cores": usable_cores(), "load": os.getloadavg()[0]}
    result["prompt"] = measure_prompt(arguments.rounds)
    print(f"prompt: {result['prompt']}", file=sys.stderr)
    result["chunk"] = measure_chunk(arguments.rounds)
    print(f"chunk: {result['chunk']}", file=sys.stderr)
    result["streams"] = asyncio.run(measure_streams(arguments.streams, arguments.seconds))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
