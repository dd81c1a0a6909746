"""How do updates become OpenAI chat chunks and chat completions?

Chunks are plain dictionaries through orjson: building the `openai` package's models costs tens of
microseconds for each token. The contract tests compare every chunk with those models.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from openai.types.chat import ChatCompletion, ChatCompletionMessage
from openai.types.chat.chat_completion import Choice as ChatChoice
from openai.types.chat.chat_completion import ChoiceLogprobs
from openai.types.completion_usage import CompletionUsage

from gateway.generate.choice_streams import Update
from gateway.openai.replies import FINISH_REASONS, LEAST_LOGPROB, ReplyHead, token_text
from gateway.text.model_files import ModelFiles
from moe_model.chat.events import (
    ContentDelta,
    ParserEvent,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallStart,
)
from protos import attention_pb2


@dataclass(kw_only=True)
class _Collected:
    """One choice of a whole answer, growing."""

    reasoning: list[str] = field(default_factory=list)
    content: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    finish_reason: str | None = None


class ChatReply:
    """Chat answers, streamed or whole."""

    def __init__(self, head: ReplyHead, model: ModelFiles, *, with_logprobs: bool):
        self._head = head
        self._model = model
        self._with_logprobs = with_logprobs
        self._introduced: set[int] = set()
        self._collected = [_Collected() for _ in head.choices]

    def chunks(self, update: Update) -> bytes:
        events = []
        if update.choice not in self._introduced:
            self._introduced.add(update.choice)
            events.append(self._chunk(update.choice, {"role": "assistant", "content": ""}))
        logprobs, call_ids = self._logprobs(update), iter(update.call_ids)
        for event in update.events:
            delta = _delta(event, call_ids)
            if delta is not None:
                events.append(self._chunk(update.choice, delta, logprobs))
                logprobs = []
        if update.finish is not None or logprobs:
            reason = FINISH_REASONS[update.finish]
            events.append(self._chunk(update.choice, {}, logprobs, reason))
        return b"".join(events)

    def closing(self) -> bytes:
        return self._head.closing()

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
        collected.finish_reason = FINISH_REASONS[update.finish]

    def whole(self) -> bytes:
        reply = ChatCompletion.model_construct(
            **self._head.fields(),
            choices=[self._choice(i, one) for i, one in enumerate(self._collected)],
            usage=CompletionUsage.model_construct(**self._head.usage()),
        )
        extra = {"expertmesh_timings": self._head.timings()} if self._head.with_timings else {}
        return reply.model_copy(update=extra).model_dump_json(exclude_unset=True).encode()

    def _choice(self, index: int, collected: _Collected) -> ChatChoice:
        extras: dict[str, Any] = {}
        if collected.reasoning:
            extras["reasoning_content"] = "".join(collected.reasoning)
        if collected.calls:
            extras["tool_calls"] = collected.calls
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
        )

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: list[dict[str, Any]] | None = None,
        finish_reason: str | None = None,
    ) -> bytes:
        return self._head.event(
            {
                "index": index,
                "delta": delta,
                "logprobs": {"content": logprobs} if logprobs else None,
                "finish_reason": finish_reason,
            }
        )

    def _logprobs(self, update: Update) -> list[dict[str, Any]]:
        if not self._with_logprobs:
            return []
        return [
            self._logprob(token_id, logprobs)
            for token_id, logprobs in zip(update.token_ids, update.logprobs, strict=True)
        ]

    def _logprob(self, token_id: int, logprobs: attention_pb2.TokenLogprobs) -> dict[str, Any]:
        alternatives = zip(logprobs.top_token_ids, logprobs.top_logprobs, strict=False)
        return {
            **self._token(token_id, logprobs.logprob),
            "top_logprobs": [self._token(other, value) for other, value in alternatives],
        }

    def _token(self, token_id: int, logprob: float) -> dict[str, Any]:
        return {
            "token": token_text(self._model, token_id),
            "logprob": max(logprob, LEAST_LOGPROB),
            "bytes": list(self._model.tokenizer.token_bytes(token_id)),
        }


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
