"""How does one `Generate` become a whole sequence of events, whatever happens to the replicas?

`generate` opens it on the replica that suits it best. When that one goes away, is stopping or
fails in a way that may pass, the stream is opened on another one with the prompt and, separately,
the tokens emitted so far: same seed, same choice, the time that is left. At most `MAX_MIGRATIONS`
times: a request that kills its replicas must not work its way through all of them. Leaving a
service that is being stopped says nothing about the request and does not count.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator

import grpc
import grpc.aio

from gateway.errors import Kind, RequestError, not_ready, overloaded
from gateway.generate.pool import AttentionPool
from gateway.generate.prefix_guess import prompt_keys
from gateway.generate.replica import Replica
from gateway.generate.stream_state import DeadlinePassed, StreamLost, StreamState, protocol_error
from protos import attention_pb2
from rpc.cancellation import is_being_cancelled

log = logging.getLogger(__name__)

MAX_MIGRATIONS = 2
MAX_ORDERLY_MOVES = 100
"""A rolling restart needs one at most; this only bounds what might never end."""
_ORDERLY = ("draining", "stopping")
ROOM_WAIT_S = 10.0
"""How long a stream that has begun waits for room elsewhere, in all until its next token; a new one
is refused at once."""
_ROOM_POLL_S = 0.1

_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""The connection broke, no service answered, or the service ended its streams as it stopped."""

Event = attention_pb2.Tokens | attention_pb2.Finished


async def generate(
    pool: AttentionPool, state: StreamState, *, vocab_size: int, stop_ids: frozenset[int]
) -> AsyncGenerator[Event, None]:
    """Yield Tokens events, then one Finished with reason STOP or LENGTH.

    `stop_ids` end the sequence. Closing the generator cancels the RPC. Raises RequestError for
    every other end: DeadlinePassed at the request's time limit, whatever came before it.
    """
    keys = prompt_keys(state.request.cache_salt, state.request.prompt_token_ids)
    avoided: set[str] = set()  # those that refused or lost it since its last token
    patience_s = ROOM_WAIT_S
    while True:
        end = state.missed_end(stop_ids)
        if end is not None:
            yield end
            return
        began_s = time.monotonic()
        replica = await _place(pool, state, keys, avoided, patience_s)
        patience_s -= time.monotonic() - began_s
        num_before = state.num_generated_tokens
        try:
            async with contextlib.aclosing(_one_stream(replica, state, vocab_size)) as events:
                async for event in events:
                    yield event
            held_ids = [*state.request.prompt_token_ids, *state.emitted_token_ids]
            replica.prefixes.remember(prompt_keys(state.request.cache_salt, held_ids))
            return
        except StreamLost as lost:
            if state.num_generated_tokens > num_before:
                avoided.clear()
                patience_s = ROOM_WAIT_S
            avoided.add(replica.address)
            _go_on_elsewhere(pool, state, replica, lost, avoided)


def _go_on_elsewhere(
    pool: AttentionPool, state: StreamState, replica: Replica, lost: StreamLost, avoided: set[str]
) -> None:
    """Count the move, or raise the error if the stream may not move."""
    if lost.reason == "full":
        if pool.has_other(avoided):
            return  # it was never there: no migration
        raise lost.error from None
    if lost.reason != "failed":
        # One broken connection ends many streams; this is logged once.
        replica.mark_down(f"{lost.reason}: {lost.detail}", forget=lost.reason == "lost")
    orderly = lost.reason in _ORDERLY
    has_failed_often = not orderly and state.num_failures >= MAX_MIGRATIONS
    spent = has_failed_often or state.num_migrations >= MAX_ORDERLY_MOVES
    if spent or not pool.has_other(avoided):
        log.log(
            logging.WARNING if lost.reason == "failed" else logging.INFO,
            "attention %s ended request %s after %d tokens: %s: %s",
            replica.address,
            state.request.request_id,
            state.num_generated_tokens,
            lost.reason,
            lost.detail,
        )
        raise lost.error from None
    state.num_migrations += 1
    state.num_failures += not orderly
    pool.count_migration(lost.reason)
    log.info(
        "request %s choice %d leaves %s after %d tokens: %s",
        state.request.request_id,
        state.request.choice_idx,
        replica.address,
        state.num_generated_tokens,
        lost.reason,
    )


async def _place(
    pool: AttentionPool,
    state: StreamState,
    keys: list[int],
    avoided: set[str],
    patience_s: float,
) -> Replica:
    """Where the sequence begins or goes on. Raises RequestError if there is no such replica."""
    give_up_s = time.monotonic() + patience_s
    while True:
        try:
            return pool.pick(
                state.num_prompt_tokens,
                avoided,
                keys,
                client=state.request.client_id,
                session=state.session,
            )
        except RequestError as error:
            has_begun = state.num_generated_tokens or state.num_migrations
            if error.kind is not Kind.OVERLOADED or not has_begun or time.monotonic() > give_up_s:
                raise
        await asyncio.sleep(_ROOM_POLL_S)


async def _one_stream(
    replica: Replica, state: StreamState, vocab_size: int
) -> AsyncGenerator[Event, None]:
    """The events of one RPC, checked. Raises StreamLost when another replica may go on."""
    request = state.request_to_go_on(replica.default_timeout_s)
    with replica.lease(state.num_prompt_tokens, state.request.client_id) as started:
        ask, grammar = replica.stub.Generate, state.grammar
        call = await grammar.open(replica.address, ask, request) if grammar else ask(request)
        state.begin_stream()
        try:
            with replica.may_send_away(call, state.num_failures < MAX_MIGRATIONS):
                async for response in call:
                    started()
                    kind = response.WhichOneof("event")
                    if kind == "prompt_logprobs":
                        state.take_prompt_logprobs(response.prompt_logprobs)
                    elif kind == "tokens":
                        state.take_tokens(response.tokens, vocab_size)
                        yield response.tokens
                    elif kind == "finished":
                        state.take_finished(response.finished)
                        yield response.finished
                        return
                    else:
                        raise protocol_error("an event of no known kind")
            raise protocol_error("the stream ended without a terminal event")
        except asyncio.CancelledError:
            if is_being_cancelled():
                raise
            state.experts_waited_ms += replica.awaited_ms(state.heard_s)
            raise replica.why_sent_away() from None
        except grpc.aio.AioRpcError as error:
            state.experts_waited_ms += replica.awaited_ms(state.heard_s)
            raise _error_of_status(error, replica, state) from None
        finally:
            call.cancel()


def _error_of_status(
    error: grpc.aio.AioRpcError, replica: Replica, state: StreamState
) -> RequestError | StreamLost:
    """What a failed RPC means. Refusals that clients can cause at will are not logged."""
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        refused = state.grammar.refused(details) if state.grammar else None
        return refused or RequestError(Kind.INVALID_REQUEST, details, reason="invalid_value")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        full = overloaded(details or "too many requests are waiting", replica.drain_s)
        return StreamLost("full", full)
    if code in _GONE:
        gone = not_ready("the attention service went away or is not ready; try again")
        return StreamLost("lost", gone, f"{code.name}: {details}")
    log.warning(
        "attention %s ended request %s: %s: %s",
        replica.address,
        state.request.request_id,
        code.name,
        details,
    )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlinePassed("")
    return RequestError(
        Kind.BROKEN_UPSTREAM,
        "the attention service failed; its log has the details",
        reason="upstream_error",
    )
