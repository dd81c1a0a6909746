"""How do updates become OpenAI text completions, streamed or whole?"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from openai.types import Completion, CompletionChoice, CompletionUsage
from openai.types.completion_choice import Logprobs

from gateway.errors import RequestError
from gateway.generate.choice_streams import Update
from gateway.http.dialect import KEEPALIVE
from gateway.openai.replies import FINISH_REASONS, ReplyHead
from gateway.shapes.logprobs import LEAST_LOGPROB, token_text
from gateway.shapes.openai_errors import OPENAI_ERRORS
from gateway.text.model_files import ModelFiles
from moe_model.chat.events import ContentDelta
from protos import attention_pb2


@dataclass(kw_only=True)
class _Collected:
    text: list[str] = field(default_factory=list)
    logprobs: dict[str, list[Any]] = field(default_factory=dict)
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class CompletionReply:
    """Text answers; `echoes` are the prompts to repeat, one per choice ("" for none)."""

    def __init__(
        self,
        head: ReplyHead,
        model: ModelFiles,
        *,
        echoes: list[str],
        with_logprobs: bool,
        with_token_ids: bool = False,
        tokens_as_ids: bool = False,
    ):
        self._head = head
        self._model = model
        self._echoes = list(echoes)
        self._with_logprobs = with_logprobs
        self._with_token_ids = with_token_ids
        self._tokens_as_ids = tokens_as_ids
        self._prompts_told: set[int] = set()
        self._offsets = [len(echo) for echo in echoes]
        self._collected = [_Collected() for _ in head.choices]

    def chunks(self, update: Update) -> bytes:
        text = self._text(update)
        logprobs = self._logprobs(update)
        if not text and logprobs is None and update.finish is None:
            return b""
        return self._head.event(
            {
                "index": update.choice,
                "text": text,
                "logprobs": logprobs,
                "finish_reason": FINISH_REASONS[update.finish],
                **self._ids(update.emitted_ids, update.stopped_by),
            }
        )

    def closing(self) -> bytes:
        return self._head.closing()

    def failed(self, error: RequestError, request_id: str) -> bytes:
        return OPENAI_ERRORS.event(error, request_id)

    def keepalive(self) -> bytes:
        return KEEPALIVE

    def collect(self, update: Update) -> None:
        collected = self._collected[update.choice]
        collected.text.append(self._text(update))
        for name, values in (self._logprobs(update) or {}).items():
            collected.logprobs.setdefault(name, []).extend(values)
        collected.finish_reason = FINISH_REASONS[update.finish]
        collected.stop_reason = update.stopped_by
        collected.token_ids += update.emitted_ids

    def whole(self) -> bytes:
        reply = Completion.model_construct(
            **self._head.fields(),
            choices=[
                CompletionChoice.model_construct(
                    index=index,
                    text="".join(one.text),
                    finish_reason=one.finish_reason,
                    # Not validated: the package's model knows no null, which the first token of a
                    # prompt has.
                    logprobs=Logprobs.model_construct(None, **one.logprobs)
                    if one.logprobs
                    else None,
                    **self._ids(one.token_ids, one.stop_reason),
                )
                for index, one in enumerate(self._collected)
            ],
            usage=CompletionUsage.model_construct(**self._head.usage()),
        )
        extra = {"expertmesh_timings": self._head.timings()} if self._head.with_timings else {}
        return reply.model_copy(update=extra).model_dump_json(exclude_unset=True).encode()

    def _text(self, update: Update) -> str:
        """The update's text, the echoed prompt before the first."""
        echo, self._echoes[update.choice] = self._echoes[update.choice], ""
        return echo + "".join(
            event.text for event in update.events if isinstance(event, ContentDelta)
        )

    def _ids(self, ids: list[int], stop_reason: str | int | None) -> dict[str, Any]:
        return {"token_ids": ids, "stop_reason": stop_reason} if self._with_token_ids else {}

    def _token(self, token_id: int) -> str:
        return f"token_id:{token_id}" if self._tokens_as_ids else token_text(self._model, token_id)

    def _logprobs(self, update: Update) -> dict[str, list[Any]] | None:
        """Parallel lists, one entry per token; before the first ones those of the prompt."""
        if not self._with_logprobs:
            return None
        entries: dict[str, list[Any]] = {
            "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []
        }  # fmt: skip
        state = self._head.choices[update.choice].state
        if state.request.sampling.prompt_logprobs and update.choice not in self._prompts_told:
            self._prompts_told.add(update.choice)
            after_prompt, self._offsets[update.choice] = self._offsets[update.choice], 0
            prompt_ids = state.request.prompt_token_ids
            self._add(entries, update.choice, prompt_ids, [None, *state.prompt_logprobs])
            self._offsets[update.choice] = after_prompt
        self._add(entries, update.choice, update.token_ids, update.logprobs)
        return entries if entries["tokens"] else None

    def _add(
        self,
        entries: dict[str, list[Any]],
        choice: int,
        token_ids: Sequence[int],
        logprobs: Sequence[attention_pb2.TokenLogprobs | None],
    ) -> None:
        """Nothing comes before the first token of a prompt, so that has no probability."""
        for token_id, one in zip(token_ids, logprobs, strict=True):
            entries["tokens"].append(self._token(token_id))
            entries["text_offset"].append(self._offsets[choice])
            self._offsets[choice] += len(token_text(self._model, token_id))
            if one is None:
                entries["token_logprobs"].append(None)
                entries["top_logprobs"].append(None)
                continue
            pairs = zip(one.top_token_ids, one.top_logprobs, strict=False)
            entries["token_logprobs"].append(max(one.logprob, LEAST_LOGPROB))
            entries["top_logprobs"].append({self._token(i): value for i, value in pairs})
