"""How do the commands ask a question? One streamed request to an OpenAI-compatible server."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from expertmesh.console import EXIT_NOT_RUNNING, EXIT_USAGE, CommandError, command_errors
from gateway.api_keys import read_keys

CONNECT_TIMEOUT_S = 5.0
SILENCE_TIMEOUT_S = 60.0
"""The gateway sends a comment every 10 s while it has nothing else to send."""


@dataclass
class Reply:
    """One answer; complete when the stream has ended."""

    reasoning: str = ""
    content: str = ""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt's, those that the server had computed before."""
    first_token_s: float | None = None
    """From sending the request to the first piece of thinking or text."""
    thinking_s: float = 0.0
    total_s: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        """Tokens after the first over the time after the first."""
        streaming_s = self.total_s - (self.first_token_s or 0.0)
        return (self.completion_tokens - 1) / streaming_s if streaming_s > 0 else 0.0

    def speed_line(self) -> str:
        return (
            f"{self.completion_tokens} tokens, {self.tokens_per_s:.1f} tokens/s, "
            f"first after {1000 * (self.first_token_s or self.total_s):.0f} ms"
        )

    def as_message(self) -> dict[str, Any]:
        """The assistant's message for the history, with its thinking, which M2 wants back."""
        return {
            "role": "assistant",
            "content": self.content,
            **({"reasoning_content": self.reasoning} if self.reasoning else {}),
            **({"tool_calls": self.tool_calls} if self.tool_calls else {}),
        }


@dataclass(frozen=True)
class Piece:
    """A piece of the answer as it arrives; its kind is `reasoning`, `content` or `tool_call`."""

    kind: str
    text: str


def client_key(api_key: str | None, api_key_file: Path | None = None) -> str | None:
    """The key to present: the first of several in EXPERTMESH_API_KEY or in a file, since a
    server is given all its clients' keys that way. Raises CommandError."""
    if api_key is None and api_key_file is not None:
        with command_errors(EXIT_USAGE):
            return read_keys(api_key_file)[0]
    if api_key is not None and api_key == os.environ.get("EXPERTMESH_API_KEY"):
        return api_key.partition(",")[0].strip()
    return api_key


def server_root(base_url: str) -> str:
    """Without the trailing /v1, which a user may give or not."""
    base_url = (base_url if "://" in base_url else f"http://{base_url}").rstrip("/")
    return base_url.removesuffix("/v1")


class ChatClient:
    """Asks one server, one question after the other."""

    def __init__(self, base_url: str, api_key: str | None = None):
        """`base_url` with or without the trailing /v1."""
        self._root = server_root(base_url)
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            trust_env=False,
        )

    def close(self) -> None:
        self._client.close()

    def model_name(self) -> str:
        """The first model that the server lists. Raises CommandError."""
        try:
            answer = self._client.get(f"{self._root}/v1/models")
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        _raise_for_error(answer)
        models = answer.json().get("data") or []
        if not models:
            raise CommandError(f"{self._root} lists no model", EXIT_NOT_RUNNING)
        return str(models[0]["id"])

    def stream(self, body: dict[str, Any], reply: Reply) -> Iterator[Piece]:
        """Send the request and yield pieces as they come; `reply` is filled on the way."""
        body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        started = time.monotonic()
        try:
            with self._client.stream(
                "POST", f"{self._root}/v1/chat/completions", json=body
            ) as answer:
                if answer.status_code != 200:
                    answer.read()
                    _raise_for_error(answer)
                for event in _events(answer.iter_lines()):
                    yield from timed_pieces(event, reply, started)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        finally:
            reply.total_s = time.monotonic() - started

    def _unreachable(self, error: httpx.HTTPError) -> CommandError:
        reason = str(error) or type(error).__name__
        return CommandError(
            f"cannot reach {self._root} ({reason}); does `expertmesh status` show a cluster?",
            EXIT_NOT_RUNNING,
        )


def error_message(answer: httpx.Response) -> str:
    """What a server says of a request that it refuses, in OpenAI's shape or another."""
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text.strip()[:200] or "no message"


def _raise_for_error(answer: httpx.Response) -> None:
    if answer.status_code == 200:
        return
    message = error_message(answer)
    code = EXIT_NOT_RUNNING if answer.status_code == 503 else 1
    raise CommandError(f"the server answered {answer.status_code}: {message}", code)


def _events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The JSON of each `data:` line up to [DONE]. Raises CommandError for an error event."""
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        event = json.loads(data)
        if event.get("error"):
            raise CommandError(
                f"the server failed: {event['error'].get('message', event['error'])}"
            )
        yield event
    raise CommandError("the answer ended before it was complete")


def timed_pieces(event: dict[str, Any], reply: Reply, started_s: float) -> Iterator[Piece]:
    """`pieces_of` an event that has just come, with the times that `reply` keeps.

    Args:
        started_s: when the answer was asked for, by time.monotonic.
    """
    for piece in pieces_of(event, reply):
        elapsed_s = time.monotonic() - started_s
        if reply.first_token_s is None:
            reply.first_token_s = elapsed_s
        if piece.kind == "reasoning":
            reply.thinking_s = elapsed_s
        yield piece


def pieces_of(event: dict[str, Any], reply: Reply) -> Iterator[Piece]:
    """Add an event of the stream to `reply`; yields what is new in it."""
    usage = event.get("usage")
    if usage:
        reply.prompt_tokens = usage.get("prompt_tokens", 0)
        reply.completion_tokens = usage.get("completion_tokens", 0)
        details = usage.get("prompt_tokens_details") or {}
        reply.cached_tokens = details.get("cached_tokens") or 0
    for choice in event.get("choices") or []:
        delta = choice.get("delta") or {}
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        if reasoning:
            reply.reasoning += reasoning
            yield Piece("reasoning", reasoning)
        if delta.get("content"):
            reply.content += delta["content"]
            yield Piece("content", delta["content"])
        for call in delta.get("tool_calls") or []:
            _merge_tool_call(reply.tool_calls, call)
            function = call.get("function") or {}
            yield Piece(
                "tool_call", (function.get("name") or "") + (function.get("arguments") or "")
            )
        reply.finish_reason = choice.get("finish_reason") or reply.finish_reason


def _merge_tool_call(calls: list[dict[str, Any]], delta: dict[str, Any]) -> None:
    """Add a streamed fragment to the call with its index."""
    index = delta.get("index", 0)
    while len(calls) <= index:
        calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
    call = calls[index]
    call["id"] = delta.get("id") or call["id"]
    function = delta.get("function") or {}
    call["function"]["name"] += function.get("name") or ""
    call["function"]["arguments"] += function.get("arguments") or ""
