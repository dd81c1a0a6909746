"""What does a benchmark request send, and what is read from its answer?"""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from expertmesh.clients.http_body import BadAnswer
from expertmesh.clients.sse import HttpError, Server, post_stream
from expertmesh.loadgen.record import Record
from expertmesh.loadgen.workload import WORDS

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
_ASK_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Target:
    """The server, and the fields that all requests to it have."""

    server: Server
    model: str
    api_key: str | None = None
    ignore_eos: bool = False
    temperature: float | None = 0.0
    seed: int | None = None
    continuous_usage: bool = True
    """Ask for the token count with every chunk (ExpertMesh, vLLM); else chunks are counted."""
    timings: bool = True
    """Ask for `expertmesh_timings`."""

    async def ask(
        self, path: str, what: dict[str, Any], output_len: int, record: Record
    ) -> dict[str, Any]:
        """Send one streamed request and fill `record`; returns the assistant's message.

        Failures are noted in `record.error`; a cancellation is noted and raised.
        """
        body = orjson.dumps({**self._common(output_len), **what})
        message: dict[str, Any] = {"role": "assistant", "content": ""}
        try:
            async with post_stream(self.server, path, body, api_key=self.api_key) as stream:
                record.started_s = stream.started_s
                async for arrived_s, data in stream.events():
                    _take(record, message, arrived_s, orjson.loads(data))
            if not record.arrivals and record.error is None:
                record.error = "the answer had no token"
        except asyncio.CancelledError:
            record.cancelled = True
            raise
        except (HttpError, BadAnswer, OSError, TimeoutError, orjson.JSONDecodeError) as error:
            record.error = str(error) or type(error).__name__
        return message

    def _common(self, output_len: int) -> dict[str, Any]:
        """The fields of every request; those that are None are left out."""
        continuous = {"continuous_usage_stats": True} if self.continuous_usage else {}
        fields = {
            "model": self.model,
            "max_tokens": output_len,
            "stream": True,
            "stream_options": {"include_usage": True, **continuous},
            "temperature": self.temperature,
            "seed": self.seed,
            "ignore_eos": self.ignore_eos or None,
            "expertmesh_timings": self.timings or None,
        }
        return {name: value for name, value in fields.items() if value is not None}


def _take(record: Record, message: dict[str, Any], arrived_s: float, event: Any) -> None:
    if event.get("error"):
        record.error = json.dumps(event["error"])[:300]
        return
    usage = event.get("usage") or {}
    brought = sum(_text_of(choice, message) for choice in event.get("choices") or ())
    so_far = usage.get("completion_tokens", record.output_tokens + (brought > 0))
    if event.get("choices"):
        record.arrive(arrived_s, so_far)
    if usage:
        record.prompt_tokens = usage.get("prompt_tokens", 0)
        # The server's count wins: a chunk without one may have had several tokens, or none.
        record.output_tokens = usage.get("completion_tokens", record.output_tokens)
        details = usage.get("prompt_tokens_details")
        if details is not None and "cached_tokens" in details and not event.get("choices"):
            record.cached_tokens = details["cached_tokens"]
    record.timings = event.get("expertmesh_timings") or record.timings


def _text_of(choice: dict[str, Any], message: dict[str, Any]) -> bool:
    """Add the choice's text to the message; returns whether it had text of any kind."""
    delta = choice.get("delta") or {"content": choice.get("text")}
    for name in ("content", "reasoning_content"):
        if delta.get(name):
            message[name] = message.get(name, "") + delta[name]
    kinds = ("content", "reasoning_content", "reasoning", "tool_calls")
    return any(delta.get(name) for name in kinds)


async def find_model(server: Server, api_key: str | None) -> str:
    """The first model that the server lists. Raises ValueError."""
    try:
        async with server.client(api_key, _ASK_TIMEOUT_S) as client:
            answer = await client.get("/v1/models")
    except httpx.HTTPError as error:
        raise ValueError(f"{server.root}: {str(error) or type(error).__name__}") from None
    if answer.status_code != 200:
        raise ValueError(f"{server.root}/v1/models: HTTP {answer.status_code}: {answer.text[:200]}")
    models = answer.json().get("data") or []
    if not models:
        raise ValueError(f"{server.root} lists no model")
    return str(models[0]["id"])


async def word_ids(server: Server, model: str, api_key: str | None) -> list[int]:
    """Ids of common words, for prompts of exact lengths; [] if the server cannot tokenise."""
    try:
        async with server.client(api_key, _ASK_TIMEOUT_S) as client:
            answer = await client.post(
                "/tokenize", json={"model": model, "prompt": " ".join(WORDS)}
            )
        tokens = answer.json().get("tokens") if answer.status_code == 200 else None
    except (httpx.HTTPError, ValueError):
        return []  # prompts are made of words instead
    return sorted(set(tokens)) if isinstance(tokens, list) else []
