"""Requests to Anthropic's Messages API, and readers for what comes back."""

import json
from typing import Any

import httpx
import orjson

from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import NAME

USER = {"role": "user", "content": "hello"}
WEATHER = {
    "name": "weather",
    "description": "The weather of a place",
    "input_schema": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
    },
    "cache_control": {"type": "ephemeral"},
}
THINKS = {"type": "enabled", "budget_tokens": 31999}


def ask(
    gateway: Harness, *, path: str = "/v1/messages?beta=true", headers: Any = None, **fields: Any
) -> httpx.Response:
    body = {"model": NAME, "messages": [USER], "max_tokens": 500, **fields}
    given = {name: value for name, value in body.items() if value is not None}
    return gateway.post(path, given, headers=headers or {})


def events(text: str) -> list[dict[str, Any]]:
    """The data of each event, whose type is its name too; comments left out."""
    found = []
    for block in text.strip().split("\n\n"):
        if block.startswith(":"):
            continue
        event, data = block.split("\n")
        found.append(orjson.loads(data.removeprefix("data: ")))
        assert event == f"event: {found[-1]['type']}"
    return found


def assembled(stream: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that a client makes of a stream, with the order of its events checked."""
    assert stream[0]["type"] == "message_start"
    assert [event["type"] for event in stream[-2:]] == ["message_delta", "message_stop"]
    message: dict[str, Any] = stream[0]["message"]
    blocks = message["content"]
    is_open, text = False, ""
    for event in stream[1:-2]:
        kind = event["type"]
        if kind == "ping":
            continue
        if kind == "content_block_start":
            assert (is_open, event["index"]) == (False, len(blocks))
            is_open, text = True, ""
            blocks.append(event["content_block"])
            continue
        assert is_open
        assert event["index"] == len(blocks) - 1
        if kind == "content_block_stop":
            is_open = False
            if blocks[-1]["type"] == "tool_use":
                blocks[-1]["input"] = json.loads(text or "{}")
            continue
        delta = dict(event["delta"])
        assert (
            delta.pop("type")
            == {
                "text": "text_delta",
                "partial_json": "input_json_delta",
                "thinking": "thinking_delta",
                "signature": "signature_delta",
            }[next(iter(delta))]
        )
        ((key, value),) = delta.items()
        if key == "partial_json":
            text += value
        else:
            blocks[-1][key] += value
    assert not is_open
    return {**message, **stream[-2]["delta"], "usage": stream[-2]["usage"]}


def prompt_of(gateway: Harness, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(gateway.fake.requests[-1].prompt_token_ids)


def both(gateway: Harness, **fields: Any) -> dict[str, Any]:
    """The whole answer, after it was compared with the streamed one."""
    whole = ask(gateway, **fields)
    assert whole.status_code == 200, whole.text
    message: dict[str, Any] = whole.json()
    streamed = assembled(events(ask(gateway, stream=True, **fields).text))
    for one in (message, streamed):
        assert one.pop("id").startswith("msg_")
        for block in one["content"]:
            if block["type"] == "tool_use":
                assert block.pop("id").startswith("toolu_")
    assert streamed == message
    return message
