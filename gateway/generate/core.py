"""How does a checked request become running choices? All that a dialect needs of the core."""

import functools
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from gateway.errors import model_not_found, not_ready
from gateway.generate.choice_streams import Choice, ChoiceStreams
from gateway.generate.grammar import RequestGrammar
from gateway.generate.parameters import set_output_length
from gateway.generate.pool import AttentionPool
from gateway.generate.request import Answers, ChatOptions, Generation, numbered_call
from gateway.generate.stream import Event, generate
from gateway.generate.stream_state import StreamState
from gateway.limits import Limits
from gateway.text.choice_text import ChatText, PlainText
from gateway.text.model_files import ModelFiles
from gateway.text.prompt_encoder import EncodedPrompt, PromptEncoder
from moe_model.chat.messages import answered_turn
from moe_model.chat.tools import without_null
from protos import attention_pb2

_CALL_ID_BYTES = 16
"""Nobody guesses an id: thinking is found by it."""


@dataclass(kw_only=True)
class Core:
    """The model's text files, the attention services, and the responses that are running."""

    limits: Limits
    model: ModelFiles
    pool: AttentionPool
    encoder: PromptEncoder
    request_timeout_s: float = 0.0
    """Longest time for a request from its receipt; 0: only the attention service's own limit."""
    forced_call_tokens: int = 4096
    """Longest output of a request that must call a tool and gives no length."""
    active: set[ChoiceStreams] = field(default_factory=set)
    stopping: bool = False
    any_model_name: bool = False
    """The one model answers to every name."""

    def check_model(self, name: object) -> None:
        """Raises RequestError unless it is a served name."""
        known = isinstance(name, str) and (self.any_model_name or name in self.model.names)
        if not known:
            raise model_not_found(name)

    def readiness(self) -> tuple[bool, str]:
        """(ready, reason when not)."""
        if self.stopping:
            return False, "the gateway is stopping"
        return self.pool.readiness()

    def require_ready(self) -> int:
        """The context in tokens. Raises RequestError with the reason when nothing can be served."""
        if self.stopping:
            raise not_ready("the gateway is stopping")
        self.pool.pick()
        return self.max_model_len

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and output together."""
        return self.pool.max_model_len() or self.model.config.max_position_embeddings

    def choices(self, asked: Generation) -> list[Choice]:
        """All choices of all prompts, not yet started.

        Raises RequestError naming the field when a prompt leaves no room for the output.
        """
        answers = asked.answers
        chat = answers.chat or ChatOptions()
        chat_format, marker_ids = self.model.chat_format, self.model.tokenizer.marker_ids
        offered = chat.tools if chat.may_call else ()
        tools = [{**tool, "function": without_null(tool["function"])} for tool in offered]

        @functools.cache  # choices share it: it is sent once
        def grammar(thinks: bool) -> RequestGrammar | None:
            text = answers.form.grammar(
                tools,
                thinks=thinks,
                several_calls=chat.several_calls,
                marker_ids=marker_ids,
                call_rules=chat_format.call_rules,
            )
            return RequestGrammar(text, answers.form.field) if text is not None else None

        banned = answers.bad_words.sequences(self.model.tokenizer)
        choices: list[Choice] = []
        for prompt in asked.prompts:
            sampling = self._sampling(answers, prompt)
            sampling.banned_sequences.extend(banned)
            reads_thinking = answers.chat is not None or answers.form.is_constrained
            thinks = reads_thinking and chat_format.opens_thinking(prompt.ids, marker_ids)
            for offset in range(answers.num_choices):
                state = StreamState(
                    request=self._request(asked, prompt, sampling, offset, thinks=thinks),
                    grammar=grammar(thinks),
                    session=f"{asked.tenant}\0{asked.session}" if asked.session else "",
                    received_s=asked.received_s,
                )
                choices.append(
                    self._choice(asked, prompt, len(choices), state, tools, thinks=thinks)
                )
        return choices

    def start(
        self, choices: Sequence[Choice], on_tokens: Callable[[Choice, int], None]
    ) -> ChoiceStreams:
        """Run the choices until `finish`. `on_tokens(choice, count)` is called when tokens come."""
        streams = ChoiceStreams(
            self.pool, choices, queued_events=self.limits.queued_events, on_tokens=on_tokens
        )
        self.active.add(streams)
        streams.start()
        return streams

    async def finish(self, streams: ChoiceStreams) -> None:
        """Cancel what still runs."""
        self.active.discard(streams)
        await streams.close()

    def events(self, choice: Choice) -> AsyncGenerator[Event, None]:
        """One choice by itself, for a caller that reads the tokens: see `generate`."""
        return generate(
            self.pool, choice.state, vocab_size=choice.vocab_size, stop_ids=choice.stop_ids
        )

    def _sampling(self, answers: Answers, prompt: EncodedPrompt) -> attention_pb2.SamplingParams:
        """With the output's length. A forced call has a limit: the model may never end it."""
        length = answers.length
        if length.most is None and answers.form.must_call:
            length = replace(length, most=max(self.forced_call_tokens, length.least))
        sampling = attention_pb2.SamplingParams()
        sampling.CopyFrom(answers.sampling)
        if answers.chat is not None and not answers.chat.may_call:
            opening = self.model.tokenizer.marker_ids[self.model.chat_format.call_start]
            sampling.logit_bias.add(token_id=opening, bias=-100.0)  # never sampled
        set_output_length(
            sampling,
            length,
            num_prompt_tokens=len(prompt.ids),
            max_model_len=self.max_model_len,
            prompt_field=prompt.field,
        )
        return sampling

    def _request(
        self,
        asked: Generation,
        prompt: EncodedPrompt,
        sampling: attention_pb2.SamplingParams,
        choice_idx: int,
        *,
        thinks: bool,
    ) -> attention_pb2.GenerateRequest:
        """A new sequence; its grammar is added when it is sent."""
        return attention_pb2.GenerateRequest(
            request_id=asked.request_id,
            prompt_token_ids=prompt.ids,
            sampling=sampling,
            cache_salt=asked.tenant,
            client_id=asked.client_id,
            end_of_thinking_id=self.model.end_of_thinking_id if thinks else 0,
            timeout_ms=int(self.request_timeout_s * 1e3),
            choice_idx=choice_idx,
            report_timings=asked.with_timings,
        )

    def _choice(
        self,
        asked: Generation,
        prompt: EncodedPrompt,
        index: int,
        state: StreamState,
        tools: Sequence[Any],
        *,
        thinks: bool,
    ) -> Choice:
        answers = asked.answers
        chat, tokenizer, sampling = answers.chat, self.model.tokenizer, state.request.sampling
        text = PlainText(tokenizer, stops=answers.stops)
        if chat is not None:
            text = ChatText(
                tokenizer,
                self.model.chat_format,
                parser=self.model.chat_format.make_parser(
                    tools=tools,
                    starts_in_reasoning=thinks,
                    parallel_tool_calls=chat.several_calls,
                ),
                stops=answers.stops,
                reasoning_in_content=chat.thinking_in_content,
            )
        stop_ids = frozenset(sampling.stop_token_ids)
        if not sampling.ignore_eos:
            stop_ids |= self.pool.default_stop_ids() or self.model.eos_token_ids
        return Choice(
            index=index,
            state=state,
            text=text,
            stop_ids=stop_ids,
            vocab_size=self.model.config.vocab_size,
            new_call_id=numbered_call
            if chat is None or chat.numbered_calls
            else partial(_random_call_id, chat.call_prefix),
            keeps_answer=chat is not None and asked.thinking_scope is not None,
            on_finished=(lambda choice: None)
            if chat is None
            else partial(self._keep, asked, prompt),
        )

    def _keep(self, asked: Generation, prompt: EncodedPrompt, choice: Choice) -> None:
        """Remember what a client may send back: the ids of the text, the thinking before a call."""
        request, emitted = choice.state.request, choice.state.emitted_token_ids
        self.encoder.emitted_ids.remember(asked.tenant, request.prompt_token_ids, emitted)
        if choice.calls and asked.thinking_scope is not None and prompt.conversation is not None:
            self.encoder.thinking.remember(
                asked.thinking_scope,
                prompt.conversation,
                answered_turn("".join(choice.content), choice.calls, self.model.chat_format.think),
                "".join(choice.thinking),
            )


def _random_call_id(prefix: str, index: int) -> str:
    return prefix + secrets.token_hex(_CALL_ID_BYTES)
