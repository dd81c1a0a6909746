"""Clients of the gateway: completions followed token by token, as server-sent events."""

import json
import time
from collections.abc import Callable
from typing import Any

import httpx

from protos import attention_pb2
from tests.support.chaos.history import History
from tests.support.chaos.streams import CALL_LIMIT_S

_REASONS = {"length": attention_pb2.FINISH_REASON_LENGTH, "stop": attention_pb2.FINISH_REASON_STOP}


def http_sender(url: str) -> Callable[[History], None]:
    """Sends a history's request to the gateway at this URL."""
    return lambda history: follow_http(url, history)


def follow_http(url: str, history: History) -> None:
    """Server-sent events carry no index: a lost or repeated token shows as wrong ones."""
    ask = history.ask
    body = {
        "model": "chaos",
        "prompt": list(ask.prompt),
        "max_tokens": ask.max_tokens,
        "seed": ask.seed,
        "temperature": ask.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "logprobs": 0,
        "return_tokens_as_token_ids": True,
    }
    history.sent_s = time.monotonic()
    try:
        with httpx.stream(
            "POST", f"{url}/v1/completions", json=body, timeout=CALL_LIMIT_S, trust_env=False
        ) as reply:
            if reply.status_code == 200:
                _read(reply, history)
            else:
                history.status = f"{reply.status_code}: {reply.read().decode()[:300]}"
    except httpx.HTTPError as error:
        history.status = f"{type(error).__name__}: {error}"
    history.ended_s = time.monotonic()


def _read(reply: httpx.Response, history: History) -> None:
    finished = attention_pb2.Finished()
    for line in reply.iter_lines():
        if not line.startswith("data: "):
            continue
        history.late_events += bool(history.terminals)
        if line == "data: [DONE]":
            history.terminals.append(finished)
            continue
        event = json.loads(line[6:])
        if "error" in event:
            history.status = f"in the stream: {event['error']}"
            return
        for choice in event["choices"]:
            _take(choice, history, finished)
        if usage := event.get("usage"):
            finished.usage.prompt_tokens = usage["prompt_tokens"]
            finished.usage.generated_tokens = usage["completion_tokens"]


def _take(choice: dict[str, Any], history: History, finished: attention_pb2.Finished) -> None:
    if logprobs := choice["logprobs"]:
        tokens = tuple(int(one.removeprefix("token_id:")) for one in logprobs["tokens"])
        history.events.append((time.monotonic(), len(history.tokens), tokens))
    if choice["finish_reason"]:
        finished.reason = _REASONS.get(
            choice["finish_reason"], attention_pb2.FINISH_REASON_UNSPECIFIED
        )
