"""How do updates become OpenAI chat chunks and chat completions?

Chunks are plain dictionaries through orjson: building the `openai` package's models costs tens of
microseconds for each token. The contract tests compare every chunk with those models.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from openai.types.chat import ChatCompletion, ChatCompletionMessage
from openai.types.chat.chat_completion import Choice as ChatChoice
from openai.types.chat.chat_completion import ChoiceLogprobs
from openai.types.completion_usage import CompletionUsage

from gateway.errors import RequestError
from gateway.generate.choice_streams import Update
from gateway.http.dialect import KEEPALIVE
from gateway.openai.replies import FINISH_REASONS, ReplyHead
from gateway.shapes.logprobs import token_logprobs
from gateway.shapes.openai_errors import OPENAI_ERRORS
from gateway.text.model_files import ModelFiles
from moe_model.chat.events import (
    ContentDelta,
    ParserEvent,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallStart,
)

NO_TOKENS: Mapping[str, Any] = MappingProxyType({})


@dataclass(kw_only=True)
class _Collected:
    """One choice of a whole answer, growing."""

    reasoning: list[str] = field(default_factory=list)
    content: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class ChatReply:
    """Chat answers, streamed or whole."""

    def __init__(
        self,
        head: ReplyHead,
        model: ModelFiles,
        *,
        with_logprobs: bool,
        with_token_ids: bool = False,
    ):
        self._head = head
        self._with_token_ids = with_token_ids
        self._model = model
        self._with_logprobs = with_logprobs
        self._introduced: set[int] = set()
        self._collected = [_Collected() for _ in head.choices]

    def chunks(self, update: Update) -> bytes:
        events = []
        if update.choice not in self._introduced:
            self._introduced.add(update.choice)
            prompt = {"prompt_token_ids": self._prompt_ids()} if self._with_token_ids else {}
            opening = {"role": "assistant", "content": ""}
            events.append(self._chunk(update.choice, opening, prompt))
        tokens, call_ids = self._tokens(update), iter(update.call_ids)
        for event in update.events:
            delta = _delta(event, call_ids)
            if delta is not None:
                events.append(self._chunk(update.choice, delta, tokens))
                tokens = {}
        if update.finish is not None or tokens:
            end = self._stop_reason(update.stopped_by)
            reason = FINISH_REASONS[update.finish]
            events.append(self._chunk(update.choice, {}, {**tokens, **end}, reason))
        return b"".join(events)

    def closing(self) -> bytes:
        return self._head.closing()

    def failed(self, error: RequestError, request_id: str) -> bytes:
        return OPENAI_ERRORS.event(error, request_id)

    def keepalive(self) -> bytes:
        return KEEPALIVE

    def collect(self, update: Update) -> None:
        collected = self._collected[update.choice]
        collected.logprobs += self._logprobs(update)
        call_ids = iter(update.call_ids)
        for event in update.events:
            if isinstance(event, ReasoningDelta):
                collected.reasoning.append(event.text)
            elif isinstance(event, ContentDelta):
                collected.content.append(event.text)
            elif isinstance(event, ToolCallStart):
                collected.calls.append(_call(event.name, next(call_ids)))
            elif isinstance(event, ToolCallArguments):
                collected.calls[event.index]["function"]["arguments"] += event.fragment
        collected.token_ids += update.emitted_ids
        collected.finish_reason = FINISH_REASONS[update.finish]
        collected.stop_reason = update.stopped_by

    def whole(self) -> bytes:
        reply = ChatCompletion.model_construct(
            **self._head.fields(),
            choices=[self._choice(i, one) for i, one in enumerate(self._collected)],
            usage=CompletionUsage.model_construct(**self._head.usage()),
        )
        extra: dict[str, Any] = {}
        if self._head.with_timings:
            extra["expertmesh_timings"] = self._head.timings()
        if self._with_token_ids:
            extra["prompt_token_ids"] = self._prompt_ids()
        return reply.model_copy(update=extra).model_dump_json(exclude_unset=True).encode()

    def _choice(self, index: int, collected: _Collected) -> ChatChoice:
        extras: dict[str, Any] = {}
        if collected.reasoning:
            extras["reasoning_content"] = "".join(collected.reasoning)
        if collected.calls:
            extras["tool_calls"] = collected.calls
        tokens = self._stop_reason(collected.stop_reason)
        if self._with_token_ids:
            tokens["token_ids"] = collected.token_ids
        content = "".join(collected.content)
        return ChatChoice.model_construct(
            index=index,
            message=ChatCompletionMessage.model_construct(
                role="assistant",
                content=None if collected.calls and not content else content,
                **extras,
            ),
            finish_reason=collected.finish_reason,
            logprobs=ChoiceLogprobs.model_construct(content=collected.logprobs)
            if self._with_logprobs
            else None,
            **tokens,
        )

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        tokens: Mapping[str, Any] = NO_TOKENS,
        finish_reason: str | None = None,
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._head.event({**choice, **tokens})

    def _tokens(self, update: Update) -> dict[str, Any]:
        """What one chunk of the update says about its tokens."""
        tokens: dict[str, Any] = {}
        if logprobs := self._logprobs(update):
            tokens["logprobs"] = {"content": logprobs}
        if self._with_token_ids and update.emitted_ids:
            tokens["token_ids"] = update.emitted_ids
        return tokens

    def _stop_reason(self, stopped_by: str | int | None) -> dict[str, Any]:
        return {"stop_reason": stopped_by} if self._with_token_ids else {}

    def _prompt_ids(self) -> list[int]:
        return list(self._head.choices[0].state.request.prompt_token_ids)

    def _logprobs(self, update: Update) -> list[dict[str, Any]]:
        if not self._with_logprobs:
            return []
        return list(token_logprobs(self._model, update.token_ids, update.logprobs))


def _delta(event: ParserEvent, call_ids: Iterator[str]) -> dict[str, Any] | None:
    if isinstance(event, ContentDelta):
        return {"content": event.text}
    if isinstance(event, ReasoningDelta):
        return {"reasoning_content": event.text}
    if isinstance(event, ToolCallStart):
        return {"tool_calls": [{"index": event.index, **_call(event.name, next(call_ids))}]}
    if isinstance(event, ToolCallArguments):
        return {"tool_calls": [{"index": event.index, "function": {"arguments": event.fragment}}]}
    return None


def _call(name: str, call_id: str) -> dict[str, Any]:
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": ""},
    }
