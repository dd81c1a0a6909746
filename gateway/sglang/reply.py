"""How do updates become SGLang's answers: one object for each choice, streamed or whole?

Each event of a stream repeats all of the choice's text. So that a long answer does not cost the
square of its length, a long text must have grown by a 64th before it is sent again, and ids and
log-probabilities come with the last event only.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.errors import RequestError
from gateway.generate.choice_streams import Choice, Finish, Update
from gateway.http.dialect import KEEPALIVE
from gateway.sglang.errors import SGLANG_ERRORS
from gateway.shapes.logprobs import LEAST_LOGPROB, token_text
from gateway.text.model_files import ModelFiles
from moe_model.chat.events import ContentDelta
from protos import attention_pb2

_DONE = b"data: [DONE]\n\n"
_SHARE = 64

Token = tuple[int, attention_pb2.TokenLogprobs | None]


@dataclass(kw_only=True)
class _Said:
    """One choice, growing."""

    parts: list[str] = field(default_factory=list)
    num_chars: int = 0
    sent_chars: int = 0
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[Token] = field(default_factory=list)
    finish: dict[str, Any] | None = None


class GenerateReply:
    """The answers to all texts."""

    def __init__(
        self,
        choices: Sequence[Choice],
        model: ModelFiles,
        *,
        one: bool,
        logprob_start: int | None,
        with_text: bool,
    ):
        """
        Args:
            one: the answer is an object and no list.
            logprob_start: from which token of the prompts on log-probabilities are told, if at all.
            with_text: a token's text stands beside its id.
        """
        self._choices = choices
        self._model = model
        self._one = one
        self._logprob_start = logprob_start
        self._with_text = with_text
        self._began_s = time.monotonic()
        self._said = [_Said() for _ in choices]

    def chunks(self, update: Update) -> bytes:
        self.collect(update)
        said = self._said[update.choice]
        new_chars = said.num_chars - said.sent_chars
        if said.finish is None and (not new_chars or new_chars < said.num_chars // _SHARE):
            return b""
        said.sent_chars = said.num_chars
        index = {} if self._one else {"index": update.choice}
        told = {**index, **self._answer(update.choice)}
        return b"data: " + orjson.dumps(told) + b"\n\n"

    def closing(self) -> bytes:
        return _DONE

    def failed(self, error: RequestError, request_id: str) -> bytes:
        return SGLANG_ERRORS.event(error, request_id) + _DONE

    def keepalive(self) -> bytes:
        return KEEPALIVE

    def collect(self, update: Update) -> None:
        said = self._said[update.choice]
        for event in update.events:
            if isinstance(event, ContentDelta):
                said.parts.append(event.text)
                said.num_chars += len(event.text)
        said.token_ids += update.emitted_ids
        said.logprobs += zip(update.token_ids, update.logprobs, strict=True)
        if update.finish is not None:
            said.finish = self._finish(update, said)

    def whole(self) -> bytes:
        answers = [self._answer(choice) for choice in range(len(self._choices))]
        return orjson.dumps(answers[0] if self._one else answers)

    def _finish(self, update: Update, said: _Said) -> dict[str, Any]:
        if update.finish is Finish.LENGTH:
            return {"type": "length", "length": len(said.token_ids)}
        matched: str | int | None = update.stopped_by
        if matched is None and said.token_ids:
            matched = said.token_ids[-1]
        return {"type": "stop", "matched": matched}

    def _answer(self, index: int) -> dict[str, Any]:
        choice, said = self._choices[index], self._said[index]
        state, text = choice.state, "".join(said.parts)
        info: dict[str, Any] = {
            "id": f"{state.request.request_id}-{index}",
            "finish_reason": said.finish,
            "prompt_tokens": state.num_prompt_tokens,
            "completion_tokens": state.num_generated_tokens,
            "cached_tokens": state.num_cached_tokens,
            "e2e_latency": round(time.monotonic() - self._began_s, 6),
        }
        if said.finish is None:
            return {"text": text, "meta_info": info}
        if state.request.sampling.logprobs:
            info |= self._logprobs("input", self._prompt(choice))
            info |= self._logprobs("output", said.logprobs)
        return {"text": text, "output_ids": said.token_ids, "meta_info": info}

    def _prompt(self, choice: Choice) -> list[Token]:
        """The prompt's tokens that are told of. SGLang gives the first one no log-probability."""
        if self._logprob_start is None:
            return []
        ids = choice.state.request.prompt_token_ids[self._logprob_start :]
        known = choice.state.prompt_logprobs[self._logprob_start :]
        return list(zip(ids, [None, *known], strict=False))

    def _logprobs(self, side: str, tokens: Sequence[Token]) -> dict[str, Any]:
        told: dict[str, Any] = {
            f"{side}_token_logprobs": [
                self._entry(token_id, None if one is None else one.logprob)
                for token_id, one in tokens
            ]
        }
        if self._choices[0].state.request.sampling.top_logprobs:
            told[f"{side}_top_logprobs"] = [
                None if one is None else list(self._alternatives(one)) for _, one in tokens
            ]
        return told

    def _alternatives(self, one: attention_pb2.TokenLogprobs) -> Iterator[list[Any]]:
        for token_id, logprob in zip(one.top_token_ids, one.top_logprobs, strict=False):
            yield self._entry(token_id, logprob)

    def _entry(self, token_id: int, logprob: float | None) -> list[Any]:
        text = token_text(self._model, token_id) if self._with_text else None
        return [None if logprob is None else max(logprob, LEAST_LOGPROB), token_id, text]
