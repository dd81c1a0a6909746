"""What does the gateway itself cost? An agent's prompt, a chunk of an answer, 64 streams at once.

1. `prompt`: the milliseconds in which a Claude Code-sized request (24 tools, about 32,000 tokens)
   is parsed, rendered and tokenised, the first time and with one more turn.
2. `chunk`: the microseconds in which one token becomes events, for each API.
3. `streams`: 64 streams of 20 tokens a second: the gateway's share of a core, and how long a token
   takes from the attention service to its client; `gateway_streams.py` says how.

No model computes anything. Progress on standard error; the last line on standard output is JSON.

    .venv/bin/python bench/mesh/gateway.py [--streams 64] [--seconds 20] [--rounds 7] [--ahead]
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.mesh.gateway_streams import CONTEXT, MODEL, measure_streams
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
from protos import attention_pb2

CHUNKS = 4000
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ahead", action="store_true", help="before other processes; needs root")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"cores": usable_cores(), "load": os.getloadavg()[0]}
    result["prompt"] = measure_prompt(arguments.rounds)
    print(f"prompt: {result['prompt']}", file=sys.stderr)
    result["chunk"] = measure_chunk(arguments.rounds)
    print(f"chunk: {result['chunk']}", file=sys.stderr)
    result["streams"] = measure_streams(arguments.streams, arguments.seconds, arguments.ahead)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
