"""How do the deltas of one request's answers become RequestOutputs?"""

import time

from expertmesh.offline.backend import Delta, Job
from expertmesh.offline.sampling_params import RequestOutputKind
from expertmesh.outputs import CompletionOutput, Logprob, RequestMetrics, RequestOutput


class Collector:
    """One request: `add` each delta, then take `output`."""

    def __init__(self, job: Job):
        self._job = job
        self.metrics = RequestMetrics(arrival_time=time.time())
        self._arrived_s = time.monotonic()
        self._with_logprobs = job.params.logprobs is not None
        self._num_cached: int | None = None
        self._prompt_logprobs: list[dict[int, Logprob] | None] | None = None
        self._slowest_ms = -1.0
        self.choices = [self._empty(index) for index in range(job.params.n)]

    @property
    def finished(self) -> bool:
        return all(choice.finished() for choice in self.choices)

    def add(self, delta: Delta) -> None:
        self._extend(self.choices[delta.index], delta)
        if delta.prompt_logprobs is not None:
            self._prompt_logprobs = delta.prompt_logprobs
        metrics = self.metrics
        if delta.token_ids:
            now = time.time()
            metrics.last_token_time = now
            if metrics.first_token_time is None:
                metrics.first_token_time = now
                metrics.first_token_latency = time.monotonic() - self._arrived_s
            metrics.num_generation_tokens += len(delta.token_ids)
        if delta.num_cached_tokens is not None:
            # The choices share a prompt, and later ones may find the first one's blocks.
            known = delta.num_cached_tokens if self._num_cached is None else self._num_cached
            self._num_cached = min(known, delta.num_cached_tokens)
        if delta.timings and delta.timings.get("total_ms", 0.0) > self._slowest_ms:
            self._slowest_ms = delta.timings.get("total_ms", 0.0)
            metrics.timings = delta.timings
        if self.finished and metrics.finished_time is None:
            metrics.finished_time = time.time()

    def output(self, delta: Delta | None = None) -> RequestOutput:
        """A copy of the current state; with a delta and output_kind DELTA, only what it added."""
        if delta is not None and self._job.params.output_kind == RequestOutputKind.DELTA:
            new = self._empty(delta.index)
            self._extend(new, delta)
            new.cumulative_logprob = self.choices[delta.index].cumulative_logprob
            new.message = self.choices[delta.index].message
            choices = [new]
        else:
            choices = [self._copy(choice) for choice in self.choices]
        return RequestOutput(
            request_id=self._job.request_id,
            prompt=self._job.prompt,
            prompt_token_ids=self._job.prompt_ids,
            outputs=choices,
            finished=self.finished,
            metrics=self.metrics,
            prompt_logprobs=self._prompt_logprobs,
            num_cached_tokens=self._num_cached,
        )

    def _empty(self, index: int) -> CompletionOutput:
        return CompletionOutput(
            index=index,
            text="",
            token_ids=[],
            cumulative_logprob=0.0 if self._with_logprobs else None,
            logprobs=[] if self._with_logprobs else None,
        )

    def _extend(self, choice: CompletionOutput, delta: Delta) -> None:
        choice.text += delta.text
        choice.token_ids += delta.token_ids
        if choice.logprobs is not None and choice.cumulative_logprob is not None:
            choice.logprobs += delta.logprobs
            for token_id, entry in zip(delta.token_ids, delta.logprobs, strict=False):
                choice.cumulative_logprob += entry[token_id].logprob
        if delta.finish_reason is not None:
            choice.finish_reason = delta.finish_reason
            choice.stop_reason = delta.stop_reason

    @staticmethod
    def _copy(choice: CompletionOutput) -> CompletionOutput:
        return CompletionOutput(
            index=choice.index,
            text=choice.text,
            token_ids=list(choice.token_ids),
            cumulative_logprob=choice.cumulative_logprob,
            logprobs=None if choice.logprobs is None else list(choice.logprobs),
            finish_reason=choice.finish_reason,
            stop_reason=choice.stop_reason,
            message=choice.message,
        )
