"""What do the attention service's RPCs do? Generate, GetStatus and RecordRouting."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from attention_svc.activations import ActivationCounts
from attention_svc.engine.engine import Engine
from attention_svc.engine.recording import record
from attention_svc.grammar.compiler import GrammarCompiler
from attention_svc.sequence.params import read_params
from attention_svc.sequence.sequence import EmittedToken, Sequence, SequenceEnd
from attention_svc.vocabulary import Vocabulary
from protos import attention_pb2, attention_pb2_grpc
from rpc.access.guard import callable_by
from rpc.config import GRAMMAR_TAKEN
from rpc.errors import NotReady, Overloaded, abort_with

_SCORES_PER_EVENT = 512
"""Prompt log-probabilities per message: with 20 alternatives each, about 100 KB."""

_TOO_LATE = SequenceEnd(reason="DEADLINE", error="the request's time limit passed", retryable=True)


class AttentionServicer(attention_pb2_grpc.AttentionServicer):
    """One Generate call is one sequence."""

    def __init__(
        self,
        engine: Engine,
        *,
        vocabulary: Vocabulary,
        grammars: GrammarCompiler,
        readiness: Callable[[], tuple[bool, str]],
        is_draining: Callable[[], bool] = lambda: False,
        reach: Callable[[], list[attention_pb2.PoolReach]] = list,
        is_invariant: Callable[[], bool] = lambda: False,
        activations: ActivationCounts,
        status: attention_pb2.GetStatusResponse,
    ):
        """
        Args:
            reach: how each pool is seen.
            is_invariant: whether no result depends on the batch.
            status: the fields of GetStatusResponse that never change.
        """
        self._engine = engine
        self._vocabulary = vocabulary
        self._grammars = grammars
        self._readiness = readiness
        self._is_draining = is_draining
        self._reach = reach
        self._is_invariant = is_invariant
        self._activations = activations
        self._status = status

    @callable_by("gateway", "cli", "router")
    async def GetStatus(
        self, request: attention_pb2.GetStatusRequest, context: Any
    ) -> attention_pb2.GetStatusResponse:
        ready, reason = self._readiness()
        scheduler = self._engine.scheduler
        response = attention_pb2.GetStatusResponse(
            ready=ready,
            not_ready_reason=reason,
            running_sequences=len(scheduler.running),
            waiting_sequences=len(scheduler.waiting),
            waiting_prompt_tokens=scheduler.waiting_tokens,
            kv_usage_ratio=scheduler.kv_usage_ratio,
            draining=self._is_draining(),
            experts_awaited_ms=int(self._engine.waits.awaited_s * 1e3),
            batch_invariant=self._is_invariant(),
            pools=self._reach(),
        )
        response.MergeFrom(self._status)
        return response

    @callable_by("cli")
    async def RecordRouting(
        self, request: attention_pb2.RecordRoutingRequest, context: Any
    ) -> AsyncIterator[attention_pb2.RecordRoutingResponse]:
        try:
            async with contextlib.aclosing(record(self._activations, request.max_steps)) as steps:
                async for step in steps:
                    yield step
        except Overloaded as error:
            await abort_with(context, error)

    @callable_by("gateway")
    async def Generate(
        self, request: attention_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[attention_pb2.GenerateResponse]:
        limit_s = (request.timeout_ms or self._status.default_timeout_ms) / 1e3
        ends_s = asyncio.get_running_loop().time() + limit_s if limit_s else None
        in_time = asyncio.timeout(None)
        try:
            ready, reason = self._readiness()
            if not ready:
                raise NotReady(reason)
            sequence = self._read(request)
            if request.HasField("grammar") or request.grammar_id:
                async with asyncio.timeout_at(ends_s) as in_time:
                    sequence.grammar = await self._grammars.start(
                        request,
                        emitted_ids=sequence.output_ids,
                        ignore_eos=sequence.params.ignore_eos,
                    )
                await context.send_initial_metadata((GRAMMAR_TAKEN,))
                if sequence.grammar.is_complete:  # it moved here when only its end was missing
                    yield _finished_event(sequence, SequenceEnd(reason="STOP"), False)
                    return
            self._engine.add(sequence)
        except Exception as error:  # abort_with knows each kind's status and logs unexpected ones
            if isinstance(error, TimeoutError) and in_time.expired():
                yield _finished_event(sequence, _TOO_LATE, False)
                return
            await abort_with(context, error)
            return
        try:
            async for response in self._events(sequence, ends_s, request.report_timings):
                yield response
        finally:
            # The caller went away, or this is a no-op after the terminal event.
            self._engine.finish(sequence, SequenceEnd(reason="ABORTED", error="cancelled"))

    async def _events(
        self, sequence: Sequence, ends_s: float | None, report_timings: bool
    ) -> AsyncIterator[attention_pb2.GenerateResponse]:
        index = len(sequence.output_ids)
        position = 1
        deadline: asyncio.TimerHandle | None = None
        if ends_s is not None:
            loop = asyncio.get_running_loop()
            deadline = loop.call_at(ends_s, self._engine.finish, sequence, _TOO_LATE)
        try:
            while True:
                tokens, end = await sequence.outbox.take()
                scores = sequence.outbox.take_prompt()
                for start in range(0, len(scores), _SCORES_PER_EVENT):
                    some = scores[start : start + _SCORES_PER_EVENT]
                    yield _prompt_event(position, some)
                    position += len(some)
                if tokens:
                    yield _tokens_event(index, tokens, sequence.params.logprobs)
                    index += len(tokens)
                if end is not None:
                    yield _finished_event(sequence, end, report_timings)
                    return
        finally:
            if deadline is not None:
                deadline.cancel()

    def _read(self, request: attention_pb2.GenerateRequest) -> Sequence:
        """Check a request and make a sequence of it. Raises ValueError naming the field."""
        vocab_size = self._vocabulary.size
        prompt, emitted = list(request.prompt_token_ids), list(request.emitted_token_ids)
        if not prompt:
            raise ValueError("prompt_token_ids is empty")
        if len(prompt) >= self._status.max_model_len:
            raise ValueError(
                f"prompt_token_ids has {len(prompt)} tokens; the maximum context length is "
                f"{self._status.max_model_len} tokens, prompt and output together"
            )
        if max(prompt) >= vocab_size or (emitted and max(emitted) >= vocab_size):
            raise ValueError(f"token ids must be in 0..{vocab_size - 1}")
        if request.end_of_thinking_id >= vocab_size:
            raise ValueError(f"end_of_thinking_id must be in 0..{vocab_size - 1}")
        params = read_params(request.sampling, vocab_size)
        room = self._status.max_model_len - len(prompt)
        if params.max_tokens > room:
            raise ValueError(
                f"sampling.max_tokens {params.max_tokens} exceeds what is left of the context "
                f"({room} tokens)"
            )
        if emitted and len(emitted) >= params.max_tokens:
            raise ValueError("emitted_token_ids already has sampling.max_tokens tokens")
        stops = params.stop_token_ids | (
            frozenset() if params.ignore_eos else self._vocabulary.default_stops
        )
        return Sequence(
            request_id=request.request_id[:200],
            prompt_ids=prompt,
            output_ids=emitted,
            params=params,
            stop_ids=stops,
            choice_idx=request.choice_idx,
            cache_salt=request.cache_salt,
            client_id=request.client_id,
            waited_elsewhere_s=request.experts_waited_ms / 1e3,
        )


def _tokens_event(
    index: int, tokens: list[EmittedToken], with_logprobs: bool
) -> attention_pb2.GenerateResponse:
    return attention_pb2.GenerateResponse(
        tokens=attention_pb2.Tokens(
            index=index,
            token_ids=[token.token_id for token in tokens],
            logprobs=[_logprobs(token) for token in tokens] if with_logprobs else [],
        )
    )


def _prompt_event(position: int, scores: list[EmittedToken]) -> attention_pb2.GenerateResponse:
    return attention_pb2.GenerateResponse(
        prompt_logprobs=attention_pb2.PromptLogprobs(
            position=position, logprobs=[_logprobs(score) for score in scores]
        )
    )


def _logprobs(token: EmittedToken) -> attention_pb2.TokenLogprobs:
    return attention_pb2.TokenLogprobs(
        logprob=token.logprob, top_token_ids=token.top_ids, top_logprobs=token.top_logprobs
    )


def _finished_event(
    sequence: Sequence, end: SequenceEnd, report_timings: bool
) -> attention_pb2.GenerateResponse:
    finished = attention_pb2.Finished(
        reason=attention_pb2.FinishReason.Value("FINISH_REASON_" + end.reason),
        stop_token_id=end.stop_token_id,
        error=end.error,
        retryable=end.retryable,
        caller_error=end.caller_error,
        experts_waited_ms=int(sequence.waited_s * 1e3),
        usage=attention_pb2.Usage(
            prompt_tokens=len(sequence.prompt_ids),
            generated_tokens=len(sequence.output_ids),
            cached_tokens=sequence.num_cached or 0,
        ),
        timings=_timings(sequence) if report_timings else None,
    )
    return attention_pb2.GenerateResponse(finished=finished)


def _timings(sequence: Sequence) -> attention_pb2.Timings:
    spent = sequence.spent
    return attention_pb2.Timings(
        queue_ms=spent.queue_s * 1e3,
        attention_ms=spent.attention_s * 1e3,
        network_ms=spent.network_s * 1e3,
        pool_queue_ms=spent.pool_queue_s * 1e3,
        pool_compute_ms=spent.pool_compute_s * 1e3,
        sampling_ms=spent.sampling_s * 1e3,
        total_ms=(time.monotonic() - sequence.received_s) * 1e3,
        first_token_ms=spent.first_token_s * 1e3,
        steps=spent.steps,
    )
