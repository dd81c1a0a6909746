"""What has been received of one sequence, and which events may come next?

Every event is checked before it counts: a running index without gaps or repeats, over all the
replicas that the sequence ran on, and one terminal event.
"""

import logging
import time
from dataclasses import dataclass, field

from gateway.errors import Kind, RequestError, bad_field, not_ready
from gateway.generate.grammar import RequestGrammar
from protos import attention_pb2

log = logging.getLogger(__name__)

_MOST_MS = 2**62


class DeadlinePassed(RequestError):
    """The request's time limit passed; an error only for an answer without a single token."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            Kind.TIMED_OUT,
            reason or "the request's time limit passed before the answer began",
            reason="deadline_exceeded",
        )


class StreamLost(Exception):
    """A replica ended a stream early, and another one may go on with it.

    `reason`: lost (the connection), stopping, draining or silent (we left it), failed, full (it
    refused).
    `error` is for the client if no other replica goes on, `detail` for the log.
    """

    def __init__(self, reason: str, error: RequestError, detail: str = ""):
        super().__init__(error.message)
        self.reason = reason
        self.error = error
        self.detail = detail or error.message


@dataclass(kw_only=True)
class StreamState:
    """One sequence: what was asked, and what came of it so that it can go on elsewhere."""

    request: attention_pb2.GenerateRequest
    emitted_token_ids: list[int] = field(default_factory=list)
    grammar: RequestGrammar | None = None
    """Shared with the other choices of the request."""
    prompt_logprobs: list[attention_pb2.TokenLogprobs] = field(default_factory=list)
    """Of all prompt tokens but the first, when asked for; complete before the first event."""
    num_cached_tokens: int = 0
    """Of the prompt, on the replica that finished the sequence."""
    timings: attention_pb2.Timings | None = None
    """Those of the replica that finished the sequence."""
    num_migrations: int = 0
    num_failures: int = 0
    """Migrations because a service died, went silent or failed."""
    experts_waited_ms: int = 0
    """For experts, since the last token, on all replicas: a move does not restart the wait."""
    heard_s: float = field(default_factory=time.monotonic)
    """When its last token came, or its present stream was opened."""
    session: str = ""
    """Which conversation it belongs to, when the client says; its replica is preferred."""
    received_s: float = field(default_factory=time.monotonic)
    """When the client's request was received: its time limit counts from there."""

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.request.prompt_token_ids)

    @property
    def num_generated_tokens(self) -> int:
        return len(self.emitted_token_ids)

    def request_to_go_on(self, default_timeout_s: float) -> attention_pb2.GenerateRequest:
        """The request for all or the rest of the sequence, in the time that is left.

        Raises DeadlinePassed when none is left. `default_timeout_s`: the replica's own limit for
        requests without one; 0 when it is not known.
        """
        timeout_s = self.request.timeout_ms / 1e3 or default_timeout_s
        if not timeout_s and not self.emitted_token_ids and not self.experts_waited_ms:
            return self.request
        request = attention_pb2.GenerateRequest()
        request.CopyFrom(self.request)
        request.emitted_token_ids[:] = self.emitted_token_ids
        request.experts_waited_ms = min(self.experts_waited_ms, _MOST_MS)
        if timeout_s:
            left_s = self.received_s + timeout_s - time.monotonic()
            if left_s <= 0:
                raise DeadlinePassed("")
            request.timeout_ms = max(1, int(left_s * 1e3))
        return request

    def missed_end(self, stop_ids: frozenset[int]) -> attention_pb2.Finished | None:
        """The terminal event that was lost with its replica, when only that was missing."""
        emitted = self.emitted_token_ids
        usage = attention_pb2.Usage(
            prompt_tokens=self.num_prompt_tokens, generated_tokens=len(emitted)
        )
        if emitted and emitted[-1] in stop_ids:
            reason = attention_pb2.FINISH_REASON_STOP
            return attention_pb2.Finished(reason=reason, stop_token_id=emitted[-1], usage=usage)
        if emitted and len(emitted) >= self.request.sampling.max_tokens:
            return attention_pb2.Finished(reason=attention_pb2.FINISH_REASON_LENGTH, usage=usage)
        return None

    def begin_stream(self) -> None:
        """A replica is asked; before the first token it sends the prompt's log-probabilities."""
        self.heard_s = time.monotonic()
        if not self.emitted_token_ids:
            self.prompt_logprobs.clear()

    def take_prompt_logprobs(self, event: attention_pb2.PromptLogprobs) -> None:
        """Raises RequestError for what breaks the protocol."""
        expected = len(self.prompt_logprobs) + 1
        if event.position != expected or expected + len(event.logprobs) > self.num_prompt_tokens:
            raise protocol_error(f"prompt logprobs from {event.position}, expected {expected}")
        self.prompt_logprobs.extend(event.logprobs)

    def take_tokens(self, tokens: attention_pb2.Tokens, vocab_size: int) -> None:
        """Raises RequestError for what breaks the protocol."""
        expected = len(self.emitted_token_ids)
        self._require_prompt_logprobs()
        if tokens.index != expected:
            raise protocol_error(f"token index {tokens.index}, expected {expected}")
        if not tokens.token_ids:
            raise protocol_error("a tokens event without tokens")
        if max(tokens.token_ids) >= vocab_size:
            raise protocol_error("a token id outside the vocabulary")
        sampling = self.request.sampling
        if sampling.logprobs and len(tokens.logprobs) != len(tokens.token_ids):
            raise protocol_error("logprobs do not match the tokens")
        if expected + len(tokens.token_ids) > sampling.max_tokens:
            raise protocol_error("more tokens than max_tokens")
        self.emitted_token_ids.extend(tokens.token_ids)
        self.heard_s, self.experts_waited_ms = time.monotonic(), 0

    def take_finished(self, finished: attention_pb2.Finished) -> None:
        """Take the terminal event.

        Raises StreamLost when another replica may go on, RequestError for every other bad end.
        """
        self.num_cached_tokens = finished.usage.cached_tokens
        if finished.HasField("timings"):
            self.timings = finished.timings
        # A replica of an older version reports 0: what is known from others stays.
        self.experts_waited_ms = max(self.experts_waited_ms, finished.experts_waited_ms)
        reason = finished.reason
        if reason in (attention_pb2.FINISH_REASON_STOP, attention_pb2.FINISH_REASON_LENGTH):
            self._require_prompt_logprobs()
            if finished.usage.generated_tokens not in (0, len(self.emitted_token_ids)):
                raise protocol_error(
                    f"{finished.usage.generated_tokens} tokens announced, "
                    f"{len(self.emitted_token_ids)} received"
                )
            return
        if reason == attention_pb2.FINISH_REASON_ABORTED:
            raise StreamLost("stopping", not_ready(finished.error or "the service is stopping"))
        if reason == attention_pb2.FINISH_REASON_ERROR and finished.retryable:
            raise StreamLost("failed", not_ready(finished.error or "the generation failed"))
        log.warning(
            "request %s ended by %s: %s",
            self.request.request_id,
            attention_pb2.FinishReason.Name(reason),
            finished.error,
        )
        if reason == attention_pb2.FINISH_REASON_DEADLINE:
            raise DeadlinePassed(finished.error)
        if reason == attention_pb2.FINISH_REASON_ERROR:
            text = finished.error or "the generation failed"
            if finished.caller_error:
                if self.grammar is not None:
                    raise bad_field(self.grammar.field, text, "generation_impossible")
                raise RequestError(Kind.INVALID_REQUEST, text, reason="generation_impossible")
            raise RequestError(Kind.INTERNAL, text, reason="generation_failed")
        raise protocol_error("a terminal event without a reason")

    def _require_prompt_logprobs(self) -> None:
        wanted = self.num_prompt_tokens - 1 if self.request.sampling.prompt_logprobs else 0
        if len(self.prompt_logprobs) != wanted:
            raise protocol_error(f"{len(self.prompt_logprobs)} prompt logprobs, expected {wanted}")


def protocol_error(what: str) -> RequestError:
    """For what no attention service may send; it is logged."""
    log.error("the attention service broke the protocol: %s", what)
    return RequestError(
        Kind.BROKEN_UPSTREAM,
        f"The attention service broke the protocol: {what}",
        reason="upstream_protocol_error",
    )
