"""How do updates become Ollama's answers: lines of JSON, or one object?

A call is told when it is whole, since its arguments are an object. One that a limit cut is left
out, so that no client runs a part of it.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

from gateway.errors import RequestError
from gateway.generate.choice_streams import Choice, Finish, Update
from gateway.shapes.logprobs import token_logprobs
from gateway.text.model_files import ModelFiles
from moe_model.chat.events import (
    ContentDelta,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)

Calls = Sequence[Mapping[str, Any]]


class Body(Protocol):
    """Where one of the two endpoints has what was said."""

    def __call__(self, content: str, thinking: str, calls: Calls) -> dict[str, Any]:
        """Of a part, or of the whole answer."""


def chat_body(content: str, thinking: str, calls: Calls) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if thinking:
        message["thinking"] = thinking
    if calls:
        message["tool_calls"] = calls
    return {"message": message}


def generate_body(content: str, thinking: str, calls: Calls) -> dict[str, Any]:
    return {"response": content, **({"thinking": thinking} if thinking else {})}


class OllamaReply:
    """One choice's answer."""

    def __init__(
        self, choice: Choice, model: ModelFiles, *, name: str, body: Body, show_thinking: bool
    ):
        """`name`: the model's, as the client has it."""
        self._choice = choice
        self._model = model
        self._name = name
        self._body = body
        self._show_thinking = show_thinking
        self._began_s = time.monotonic()
        self._first_s: float | None = None
        self._call: tuple[int, str] = 0, ""
        self._arguments: list[str] = []
        self._finish: Finish | None = None
        self._content: list[str] = []
        self._thinking: list[str] = []
        self._calls: list[Mapping[str, Any]] = []
        self._logprobs: list[dict[str, Any]] = []

    def chunks(self, update: Update) -> bytes:
        content, thinking, calls, logprobs = self._read(update)
        if not (content or thinking or calls or logprobs):
            return b""
        extra = {"logprobs": logprobs} if logprobs else {}
        return self._line({**self._body(content, thinking, calls), **extra, "done": False})

    def closing(self) -> bytes:
        return self._line({**self._body("", "", ()), **self._end()})

    def failed(self, error: RequestError, request_id: str) -> bytes:
        return orjson.dumps({"error": error.message}) + b"\n"

    def keepalive(self) -> bytes:
        """A part with nothing in it: readers take every line for JSON."""
        return self._line({**self._body("", "", ()), "done": False})

    def collect(self, update: Update) -> None:
        content, thinking, calls, logprobs = self._read(update)
        self._content.append(content)
        self._thinking.append(thinking)
        self._calls += calls
        self._logprobs += logprobs

    def whole(self) -> bytes:
        said = self._body("".join(self._content), "".join(self._thinking), self._calls)
        extra = {"logprobs": self._logprobs} if self._logprobs else {}
        return self._line({**said, **extra, **self._end()})

    def _read(
        self, update: Update
    ) -> tuple[str, str, list[Mapping[str, Any]], list[dict[str, Any]]]:
        """Content, thinking, whole calls and log-probabilities of one update."""
        if self._first_s is None:
            self._first_s = time.monotonic()
        content, thinking, calls = "", "", []
        for event in update.events:
            if isinstance(event, ContentDelta):
                content += event.text
            elif isinstance(event, ReasoningDelta):
                thinking += event.text if self._show_thinking else ""
            elif isinstance(event, ToolCallStart):
                self._call, self._arguments = (event.index, event.name), []
            elif isinstance(event, ToolCallArguments):
                self._arguments.append(event.fragment)
            elif isinstance(event, ToolCallEnd) and event.complete:
                calls.append(self._whole_call())
        self._finish = update.finish or self._finish
        logprobs = token_logprobs(self._model, update.token_ids, update.logprobs)
        return content, thinking, calls, list(logprobs)

    def _whole_call(self) -> Mapping[str, Any]:
        index, name = self._call
        # Parsed, a long integer would be rounded.
        arguments = orjson.Fragment("".join(self._arguments) or "{}")
        return {"function": {"index": index, "name": name, "arguments": arguments}}

    def _end(self) -> dict[str, Any]:
        """Of the last line: how it ended, tokens, and times in nanoseconds."""
        now_s, state = time.monotonic(), self._choice.state
        first_s = now_s if self._first_s is None else self._first_s
        return {
            "done": True,
            "done_reason": "length" if self._finish is Finish.LENGTH else "stop",
            "total_duration": int((now_s - self._began_s) * 1e9),
            "load_duration": 0,
            "prompt_eval_count": state.num_prompt_tokens,
            "prompt_eval_duration": int((first_s - self._began_s) * 1e9),
            "eval_count": state.num_generated_tokens,
            "eval_duration": int((now_s - first_s) * 1e9),
        }

    def _line(self, said: dict[str, Any]) -> bytes:
        return orjson.dumps({"model": self._name, "created_at": now(), **said}) + b"\n"


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
