"""Requests to Ollama's API, and readers for what comes back."""

import json
from typing import Any

import httpx

from tests.support.gateway.harness import Harness
from tests.support.gateway.model import NAME

USER = {"role": "user", "content": "hello"}
VARYING = ("created_at", "total_duration", "prompt_eval_duration", "eval_duration")


def ask(gateway: Harness, *, path: str = "/api/chat", **fields: Any) -> httpx.Response:
    content = {"messages": [USER]} if path == "/api/chat" else {"prompt": "hello"}
    body = {"model": NAME, **content, **fields}
    return gateway.post(path, {name: value for name, value in body.items() if value is not None})


def lines(reply: httpx.Response) -> list[dict[str, Any]]:
    assert reply.headers["content-type"] == "application/x-ndjson"
    assert reply.text.endswith("\n")
    return [json.loads(line) for line in reply.text.splitlines()]


def assembled(stream: list[dict[str, Any]]) -> dict[str, Any]:
    """The answer that a client makes of a stream's lines."""
    assert [line["done"] for line in stream] == [False] * (len(stream) - 1) + [True]
    whole = dict(stream[-1])
    for line in stream[:-1]:
        if "message" in line:
            message = whole["message"] = dict(whole["message"])
            for name, value in line["message"].items():
                if name != "role":
                    message[name] = message.get(name, type(value)()) + value
        for name in ("response", "thinking", "logprobs"):
            if name in line:
                whole[name] = whole.get(name, type(line[name])()) + line[name]
    return whole


def both(gateway: Harness, **fields: Any) -> dict[str, Any]:
    """The whole answer, after it was compared with the streamed one."""
    reply = ask(gateway, stream=False, **fields)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/json"
    whole: dict[str, Any] = reply.json()
    streamed = assembled(lines(ask(gateway, **fields)))
    for one in (whole, streamed):
        for name in VARYING:
            one.pop(name)
    assert streamed == whole
    return whole
