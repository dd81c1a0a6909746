"""How does one `Generate` stream become a checked sequence of events?

`generate` opens it on the least loaded replica with room, moves on to another one as long as
nothing was emitted, and checks what comes: a running index without gaps or repeats, one terminal
event.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

import grpc
import grpc.aio

from gateway.attention_pool import AttentionPool
from gateway.errors import SERVER, ApiError, bad_field, not_ready, overloaded
from gateway.replica import Replica
from protos import attention_pb2

log = logging.getLogger(__name__)

_ORDINARY = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
"""Refusals that clients can cause at will; the metrics count them, the log does not."""
_RETRY_ELSEWHERE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)


@dataclass(kw_only=True)
class StreamState:
    """One sequence: what was asked and what came, apart, so that it could resume elsewhere."""

    request: attention_pb2.GenerateRequest
    emitted_token_ids: list[int] = field(default_factory=list)
    grammar_field: str = "response_format"
    """The client's field to name when the attention service refuses the grammar."""
    prompt_logprobs: list[attention_pb2.TokenLogprobs] = field(default_factory=list)
    """Of all prompt tokens but the first, when asked for; complete before the first event."""
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    timings: attention_pb2.Timings | None = None

    def __post_init__(self) -> None:
        self.num_prompt_tokens = len(self.request.prompt_token_ids)

    @property
    def num_generated_tokens(self) -> int:
        return len(self.emitted_token_ids)


Event = attention_pb2.Tokens | attention_pb2.Finished


async def generate(
    pool: AttentionPool, state: StreamState, *, vocab_size: int
) -> AsyncGenerator[Event, None]:
    """Yield Tokens events, then one Finished with reason STOP or LENGTH; other ends are ApiErrors.

    Closing the generator cancels the RPC.
    """
    tried: set[str] = set()
    while True:
        replica = pool.pick(state.num_prompt_tokens, tried)
        tried.add(replica.address)
        try:
            async for event in _one_stream(replica, state, vocab_size):
                yield event
            return
        except grpc.aio.AioRpcError as error:
            # One broken connection ends many streams: the first is told, the others are counted.
            is_news = error.code() not in _ORDINARY and replica.ready
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                replica.mark_down(f"unavailable: {error.details()}")
            movable = error.code() in _RETRY_ELSEWHERE and not state.emitted_token_ids
            if movable and pool.has_other(tried):
                log.warning("attention %s: %s; trying another", replica.address, error.code().name)
                continue
            log.log(
                logging.WARNING if is_news else logging.DEBUG,
                "attention %s ended request %s: %s: %s",
                replica.address,
                state.request.request_id,
                error.code().name,
                error.details(),
            )
            raise _error_of_status(error, replica, state) from None


async def _one_stream(
    replica: Replica, state: StreamState, vocab_size: int
) -> AsyncIterator[Event]:
    with replica.lease(state.num_prompt_tokens) as started:
        call = replica.stub.Generate(state.request)
        state.prompt_logprobs.clear()  # another replica began to tell them
        try:
            async for response in call:
                started()
                kind = response.WhichOneof("event")
                if kind == "prompt_logprobs":
                    _take_prompt_logprobs(state, response.prompt_logprobs)
                elif kind == "tokens":
                    _take_tokens(state, response.tokens, vocab_size)
                    yield response.tokens
                elif kind == "finished":
                    _take_finished(state, response.finished)
                    yield response.finished
                    return
                else:
                    raise _protocol_error("an event of no known kind")
            raise _protocol_error("the stream ended without a terminal event")
        finally:
            call.cancel()


def _take_prompt_logprobs(state: StreamState, event: attention_pb2.PromptLogprobs) -> None:
    expected = len(state.prompt_logprobs) + 1
    if event.position != expected or expected + len(event.logprobs) > state.num_prompt_tokens:
        raise _protocol_error(f"prompt logprobs from {event.position} where {expected} was due")
    state.prompt_logprobs.extend(event.logprobs)


def _require_prompt_logprobs(state: StreamState) -> None:
    wanted = state.num_prompt_tokens - 1 if state.request.sampling.prompt_logprobs else 0
    if len(state.prompt_logprobs) != wanted:
        raise _protocol_error(
            f"{len(state.prompt_logprobs)} prompt logprobs where {wanted} were due"
        )


def _take_tokens(state: StreamState, tokens: attention_pb2.Tokens, vocab_size: int) -> None:
    expected = len(state.emitted_token_ids)
    _require_prompt_logprobs(state)
    if tokens.index != expected:
        raise _protocol_error(f"token index {tokens.index} where {expected} was due")
    if not tokens.token_ids:
        raise _protocol_error("a tokens event without tokens")
    if max(tokens.token_ids) >= vocab_size:
        raise _protocol_error("a token id outside the vocabulary")
    sampling = state.request.sampling
    if sampling.logprobs and len(tokens.logprobs) != len(tokens.token_ids):
        raise _protocol_error("logprobs do not match the tokens")
    if expected + len(tokens.token_ids) > sampling.max_tokens:
        raise _protocol_error("more tokens than max_tokens")
    state.emitted_token_ids.extend(tokens.token_ids)


def _take_finished(state: StreamState, finished: attention_pb2.Finished) -> None:
    state.num_cached_tokens = finished.usage.cached_tokens
    if finished.HasField("timings"):
        state.timings = finished.timings
    reason = finished.reason
    if reason in (attention_pb2.FINISH_REASON_STOP, attention_pb2.FINISH_REASON_LENGTH):
        _require_prompt_logprobs(state)
        if finished.usage.generated_tokens not in (0, len(state.emitted_token_ids)):
            raise _protocol_error(
                f"{finished.usage.generated_tokens} tokens announced, "
                f"{len(state.emitted_token_ids)} received"
            )
        return
    log.warning(
        "request %s ended by %s: %s",
        state.request.request_id,
        attention_pb2.FinishReason.Name(reason),
        finished.error,
    )
    if reason == attention_pb2.FINISH_REASON_DEADLINE:
        raise ApiError(
            504,
            finished.error or "the request's time limit passed before the answer was complete",
            type=SERVER,
            code="deadline_exceeded",
        )
    if reason == attention_pb2.FINISH_REASON_ABORTED:
        raise not_ready(finished.error or "the service is stopping")
    if reason == attention_pb2.FINISH_REASON_ERROR:
        if finished.retryable:
            raise not_ready(finished.error or "the generation failed")
        raise ApiError(
            500, finished.error or "the generation failed", type=SERVER, code="generation_failed"
        )
    raise _protocol_error("a terminal event without a reason")


def _protocol_error(what: str) -> ApiError:
    log.error("the attention service broke the protocol: %s", what)
    return ApiError(
        502,
        f"The attention service broke the protocol: {what}",
        type=SERVER,
        code="upstream_protocol_error",
    )


def _error_of_status(error: grpc.aio.AioRpcError, replica: Replica, state: StreamState) -> ApiError:
    """The HTTP error for a failed RPC."""
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.INVALID_ARGUMENT and details.startswith("grammar"):
        return bad_field(state.grammar_field, details.removeprefix("grammar: "))
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return ApiError(400, details, code="invalid_value")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return overloaded(details or "too many requests are waiting", replica.drain_s)
    if code is grpc.StatusCode.UNAVAILABLE:
        return not_ready("the attention service went away or is not ready; try again")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ApiError(
            504, "the request's time limit passed", type=SERVER, code="deadline_exceeded"
        )
    return ApiError(
        502,
        "the attention service failed; its log has the details",
        type=SERVER,
        code="upstream_error",
    )
