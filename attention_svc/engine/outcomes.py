"""What becomes of sequences after a step: tokens to their outboxes, ends, and what is counted."""

import time
from collections.abc import Callable
from functools import partial

from attention_svc.engine.expert_waits import ExpertWaits
from attention_svc.engine.next_masks import NextMasks
from attention_svc.engine.row_shares import Slice
from attention_svc.engine.scheduler import Scheduler
from attention_svc.engine.step import Step
from attention_svc.metrics import AttentionMetrics
from attention_svc.sampling.sampler import SamplingFailed
from attention_svc.sequence.sequence import EmittedToken, Sequence, SequenceEnd, StepTimes

# The caller learns what to do; which pool failed, and why, is in the log.
NO_EXPERTS = SequenceEnd(reason="ERROR", error="the experts are unavailable", retryable=True)


class Outcomes:
    """Of the sequences of one scheduler."""

    def __init__(
        self,
        scheduler: Scheduler,
        metrics: AttentionMetrics,
        *,
        vocab_size: int,
        max_model_len: int,
        expert_timeout_s: float,
        mask_timeout_s: float,
        wake: Callable[[], None],
    ):
        """`wake`: called when a grammar has answered late."""
        self._scheduler, self._metrics = scheduler, metrics
        self._max_model_len = max_model_len
        self.num_tokens = 0
        self.waits = ExpertWaits(
            expert_timeout_s,
            lambda: [*scheduler.running, *scheduler.waiting],
            lambda sequence: self.finish(sequence, NO_EXPERTS),
        )
        self.masks = NextMasks(vocab_size, finish=self.finish, wake=wake, timeout_s=mask_timeout_s)
        self._unsent: list[Callable[[], None]] = []

    def send(self) -> None:
        """Hand out what `emit` and `account` have left to do: the next step need not wait for it.

        Nothing is awaited between those and this.
        """
        unsent, self._unsent = self._unsent, []
        for work in unsent:
            work()

    def later(self, work: Callable[[], None]) -> None:
        """Leave something to `send`: it need not hold up the next step."""
        self._unsent.append(work)

    def emit(self, sequence: Sequence, token: EmittedToken | SamplingFailed) -> None:
        if sequence.finished:  # its prompt's log-probabilities failed in this step
            return
        if isinstance(token, SamplingFailed):
            end = SequenceEnd(reason="ERROR", error=token.reason, caller_error=token.caller_error)
            self.finish(sequence, end)
            return
        self._scheduler.tables.publish(sequence)  # before its end gives the blocks back
        if not sequence.params.max_tokens:
            self.finish(sequence, SequenceEnd(reason="LENGTH"))
            return
        self.waits.served(sequence)
        sequence.output_ids.append(token.token_id)
        self._unsent.append(partial(self._send_token, sequence, token))
        self.num_tokens += 1
        if token.token_id in sequence.stop_ids:
            self.finish(sequence, SequenceEnd(reason="STOP", stop_token_id=token.token_id))
            return
        is_last = (
            len(sequence.output_ids) >= sequence.params.max_tokens
            or sequence.num_known >= self._max_model_len
        )
        if sequence.grammar is not None:
            self.masks.advance(sequence, token.token_id, is_last=is_last)
        elif is_last:
            self.finish(sequence, SequenceEnd(reason="LENGTH"))

    def _send_token(self, sequence: Sequence, token: EmittedToken) -> None:
        now = time.monotonic()
        if sequence.last_token_s:
            self._metrics.inter_token_s.observe(now - sequence.last_token_s)
        else:
            sequence.spent.first_token_s = now - sequence.received_s
            self._metrics.ttft_s.observe(sequence.spent.first_token_s)
        sequence.last_token_s = now
        sequence.outbox.put(token)

    def publish(self, step: Step, finite: list[bool]) -> None:
        """Publish the blocks of sequences whose prompt continues in a later step.

        A NaN anywhere in a sequence's K or V reaches its last row, so that a finite last row
        vouches for all its blocks.
        """
        for part, is_finite in zip(step.continuing, finite, strict=True):
            if part.sequence.finished:
                continue
            if is_finite:
                self._scheduler.tables.publish(part.sequence)
            else:
                self.emit(part.sequence, SamplingFailed("the prompt produced NaN or infinity"))

    def finish(self, sequence: Sequence, end: SequenceEnd) -> None:
        """End a sequence, if it has not ended; its blocks are free before the next step."""
        if sequence.finished:
            return
        self.send()  # its last token comes before its end
        sequence.finished = True
        sequence.waited_s = self.waits.waited_s(sequence)
        self._scheduler.remove(sequence)
        sequence.outbox.close(end)
        self._metrics.sequences.labels(end.reason.lower()).inc()
        self._metrics.sequence_s.observe(time.monotonic() - sequence.received_s)

    def fail(self, plan: list[Slice], end: SequenceEnd) -> None:
        for part in plan:
            self.finish(part.sequence, end)

    def account(self, plan: list[Slice], times: StepTimes) -> None:
        self._unsent.append(partial(self._account, plan, times))

    def _account(self, plan: list[Slice], times: StepTimes) -> None:
        steps = self._metrics.step_s
        steps["attention"].observe(times.attention_s)
        steps["experts"].observe(times.network_s + times.pool_queue_s + times.pool_compute_s)
        steps["sample"].observe(times.sampling_s)
        if times.device_s:
            self._metrics.device_step_s.observe(times.device_s)
        for part in plan:
            spent = part.sequence.spent
            spent.steps += 1
            spent.attention_s += times.attention_s
            spent.network_s += times.network_s
            spent.pool_queue_s += times.pool_queue_s
            spent.pool_compute_s += times.pool_compute_s
            spent.sampling_s += times.sampling_s

    def update_gauges(self) -> None:
        scheduler, metrics = self._scheduler, self._metrics
        metrics.running.set(len(scheduler.running))
        metrics.waiting.set(len(scheduler.waiting))
        metrics.kv_usage.set(scheduler.kv_usage_ratio)
        metrics.catch_up(
            generated_tokens=self.num_tokens,
            preemptions=scheduler.num_preemptions,
            prefix_queries_tokens=scheduler.tables.num_queried_tokens,
            prefix_hits_tokens=scheduler.tables.num_hit_tokens,
        )
        host = scheduler.tables.host
        if host is not None:
            metrics.kv_host_used.set(host.num_used)
            metrics.catch_up(
                kv_host_moved_out=host.num_moved_out,
                kv_host_read_back=host.num_read_back,
                kv_host_saved_tokens=host.num_saved_tokens,
            )
