"""What happens in a step? Plan, run the layers, sample, hand out tokens; then the next step.

1. The scheduler plans which sequences compute how many tokens.
2. `pack` turns the plan into tensors; `LayerStack.forward` runs it.
3. Sequences whose last known token was computed get the next one from the sampler. If a grammar has
   not said yet what it allows, its sequence's logits are kept and it takes no part in steps until
   then; the others do not wait for it, and its tokens are the same.
4. What was computed is offered to the prefix cache; tokens go to the sequences' outboxes; finished
   sequences leave and give their blocks back.
5. On a device that picks tokens by itself a decode step begins before the one before it has ended
   (`ahead.py`); if that one's tokens turn out not to be all picked, both are computed again.

One coroutine, one step at a time. A failed expert call fails the sequences of its step; a sequence
whose sampling fails ends alone.
"""

import asyncio
import logging
import time
from functools import partial

import numpy as np
import torch
from torch import Tensor

from attention_svc.engine.ahead import Ahead, pack_ahead, plan_ahead
from attention_svc.engine.layer_stack import LayerStack, StepLogits, done
from attention_svc.engine.next_masks import banned_rows
from attention_svc.engine.outcomes import NO_EXPERTS, Outcomes
from attention_svc.engine.prompt_logprobs import prompt_scorer
from attention_svc.engine.row_shares import Slice
from attention_svc.engine.scheduler import Scheduler
from attention_svc.engine.step import Step, pack, partly_filled
from attention_svc.experts.transport import ExpertsUnavailable, HopTerms, StepPoisoned
from attention_svc.grammar.limits import MASK_TIMEOUT_S
from attention_svc.kv.host_memory import HostMemory, make_moves
from attention_svc.kv.moves import BlockCopy
from attention_svc.metrics import AttentionMetrics
from attention_svc.sampling.plain import plain_controls
from attention_svc.sampling.sampler import SamplingFailed, sample
from attention_svc.sequence.sequence import EmittedToken, Sequence, SequenceEnd, StepTimes
from moe_model.device_failures import is_fatal

log = logging.getLogger(__name__)

_OUR_BUG = SequenceEnd(reason="ERROR", error="internal error")


class Engine:
    """Owns the sequences. `add` and `finish` may be called between any two awaits."""

    def __init__(
        self,
        stack: LayerStack,
        scheduler: Scheduler,
        metrics: AttentionMetrics,
        *,
        max_model_len: int,
        expert_timeout_s: float,
        missing_ids: tuple[int, ...] = (),
        mask_timeout_s: float = MASK_TIMEOUT_S,
        host_memory: HostMemory | None = None,
    ):
        """`missing_ids`: ids without a token, never sampled.

        `host_memory`: of the blocks that `scheduler.tables.host` keeps; None if it keeps none.
        """
        self._stack = stack
        self.progress = stack.progress
        self.is_invariant = stack.is_invariant
        self.scheduler = scheduler
        self._metrics = metrics
        self._host_memory = host_memory
        self._expert_timeout_s = expert_timeout_s
        self._wake = asyncio.Event()
        self._experts_failed = False  # no step has had its experts since one failed
        self._max_model_len = max_model_len
        self._ahead: Ahead | None = None
        self._may_go_ahead = True
        self._outcomes = Outcomes(
            scheduler,
            metrics,
            vocab_size=stack.config.vocab_size,
            max_model_len=max_model_len,
            expert_timeout_s=expert_timeout_s,
            mask_timeout_s=mask_timeout_s,
            wake=self._wake.set,
        )
        self.waits, self._masks = self._outcomes.waits, self._outcomes.masks
        self._missing_ids = torch.tensor(missing_ids, device=stack.device) if missing_ids else None

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence. Raises what Scheduler.add raises."""
        self.scheduler.add(sequence)
        self.waits.enter(sequence)
        self._metrics.prompt_tokens.inc(len(sequence.prompt_ids))
        self._wake.set()

    def reset_prefix_cache(self) -> bool:
        """Forget what was computed for earlier prompts; False, and nothing, while one runs."""
        return self.scheduler.tables.forget()

    def close(self) -> None:
        """End its threads; call it after `run` has ended."""
        self._masks.close()

    def abort_all(self, end: SequenceEnd) -> None:
        for sequence in [*self.scheduler.running, *self.scheduler.waiting]:
            self.finish(sequence, end)

    def finish(self, sequence: Sequence, end: SequenceEnd) -> None:
        """End a sequence, if it has not ended; its blocks are free before the next step."""
        self._outcomes.finish(sequence, end)

    @property
    def num_tokens(self) -> int:
        """Sampled so far."""
        return self._outcomes.num_tokens

    @property
    def idle(self) -> bool:
        return not self.scheduler.running and not self.scheduler.waiting

    async def run(self) -> None:
        """Step until cancelled. Raises failures of memory or device; others are our bugs."""
        while True:
            if await self.step():
                if not self._stack.picks:  # which lets others run while its device computes
                    await asyncio.sleep(0)  # let new requests and cancellations run
            else:
                self._wake.clear()
                await self._wake.wait()

    async def step(self) -> bool:
        """Plan and run one step; False when there was nothing to do."""
        await self._sample_late()
        start = time.monotonic()
        ahead, self._ahead = self._ahead, None
        plan = self.scheduler.schedule() if ahead is None else ahead.plan
        if plan:
            scheduled_s = time.monotonic() - start
            self._outcomes.later(partial(self._metrics.step_s["schedule"].observe, scheduled_s))
            self.progress.stepping = True
            self.progress.moves += 1
            try:
                await self._try_step(plan, ahead)
            finally:
                self.progress.stepping = False
        if not plan or not self._stack.picks:
            self._tell()
        return bool(plan)

    def _tell(self) -> None:
        """What the next step need not wait for: done while a device computes it, if there is one.

        Nothing is awaited between a step's end and this.
        """
        self._outcomes.send()
        self._outcomes.update_gauges()
        # A step's last hop is noted after the step: the next pass counts it, even an idle one.
        self._metrics.flush_hops(*self._stack.row_bytes)

    async def _try_step(
        self, plan: list[Slice], ahead: Ahead | None = None, *, bisecting: bool = False
    ) -> None:
        """A step whose failure ends its own sequences only."""
        try:
            await self._compute(plan, ahead, bisecting=bisecting)
            self._experts_failed = False
        except StepPoisoned as error:
            await self._bisect(plan, error)
        except ExpertsUnavailable as error:
            if not self._experts_failed:  # logged once, however many steps fail after it
                log.error("step failed: %s", error)
            self._experts_failed = True
            self._outcomes.fail(plan, NO_EXPERTS)
        except Exception as error:  # our bug: fail this step's requests, keep serving the others
            if is_fatal(error):
                raise
            log.exception("step failed")
            self._outcomes.fail(plan, _OUR_BUG)

    async def _bisect(self, plan: list[Slice], error: StepPoisoned) -> None:
        """Find the sequence whose rows break pools or are refused, so that the others can go on."""
        alive = [part for part in plan if not part.sequence.finished]
        if len(alive) < 2:
            log.error("a request whose rows break its steps was failed: %s", error)
            self._outcomes.fail(alive, _OUR_BUG)
            return
        log.warning("retrying a step of %d sequences in halves: %s", len(alive), error)
        half = len(alive) // 2
        for part in (alive[:half], alive[half:]):
            left = [one for one in part if not one.sequence.finished]
            if left:
                await self._try_step(left, bisecting=True)

    async def _compute(self, plan: list[Slice], ahead: Ahead | None, *, bisecting: bool) -> None:
        now = time.monotonic()
        for part in plan:
            if not part.sequence.started_s:
                part.sequence.started_s = now
                part.sequence.spent.queue_s = now - part.sequence.received_s
            self._masks.begin(part.sequence)
        step = pack(plan, self.scheduler.tables.block_size) if ahead is None else ahead.step
        times = StepTimes()
        terms = HopTerms(
            timeout_s=self._expert_timeout_s,
            patience=self.waits.of_step(part.sequence for part in plan),
            wanted=lambda: not all(part.sequence.finished for part in plan),
            # While bisecting one more break is proof enough, unless the sequence is alone.
            max_breaks=1 if bisecting and len(plan) > 1 else 2,
        )
        scorer = prompt_scorer(plan, self._missing_ids)
        controls = self._plain_controls(step) if ahead is None else ahead.controls
        if ahead is None:
            await self._prepare_blocks(plan)
        start = time.monotonic()
        found = await self._stack.forward(
            step.meta,
            terms,
            times,
            scorer.score if scorer else None,
            controls,
            partial(self._meanwhile, None if controls is None else step),
            None if ahead is None else ahead.under_way,
        )
        if not await self._all_picked(step, found):
            return
        if self._host_memory is not None and not step.meta.is_decode:
            took_s = time.monotonic() - start
            self._host_memory.cost.note_computed(step.meta.num_rows, took_s)
        self._outcomes.later(partial(self._metrics.batch_rows.observe, step.meta.num_rows))
        # An aborted sequence has given its blocks back.
        for part in plan:
            if not part.sequence.finished:
                part.sequence.num_computed += part.num_tokens
        start = time.monotonic()
        chosen = [
            i for i, part in enumerate(step.completing) if self._masks.allow_sampling(part.sequence)
        ]
        self._hold_late(step, found.logits_BV, chosen)
        sequences = [step.completing[i].sequence for i in chosen]
        found = found if len(chosen) == len(step.completing) else found.of(chosen)
        picked = None if controls is None else found.picked
        tokens = await self._sample(found.logits_BV, sequences, picked)
        times.sampling_s = time.monotonic() - start
        self._outcomes.account(plan, times)
        start = time.monotonic()
        for sequence in scorer.deliver() if scorer else ():
            self._outcomes.emit(sequence, SamplingFailed("the prompt produced NaN or infinity"))
        self._outcomes.publish(step, found.finite_open)
        for sequence, token in zip(sequences, tokens, strict=True):
            self._outcomes.emit(sequence, token)
        streamed_s = time.monotonic() - start
        self._outcomes.later(partial(self._metrics.step_s["stream"].observe, streamed_s))

    def _meanwhile(self, step: Step | None, is_short: bool) -> None:
        """While a device computes `step`: the next one is sent off, too; the rest can wait.

        `step`: None if it does not pick the tokens of all its rows.
        """
        if step is not None and is_short and self._may_go_ahead:
            plan = plan_ahead(self.scheduler, step.completing, self._max_model_len)
            if plan is not None:
                following, controls = pack_ahead(plan, self.scheduler.tables.block_size)
                under_way = self._stack.begin_next(following.meta, controls)
                if under_way is not None:
                    self._ahead = Ahead(plan, following, controls, under_way)
        self._tell()

    async def _all_picked(self, step: Step, found: StepLogits) -> bool:
        """Whether the step after this one, if it is under way, has tokens to go on from.

        Without one that the host has to find, it goes on from nothing, and its logits take the
        place of those that the host would look at: this step is computed again, and by itself.
        """
        is_open = self._ahead is not None and any(
            picked < 0 and not part.sequence.finished
            for part, picked in zip(step.completing, found.picked or (), strict=True)
        )
        self._may_go_ahead = not is_open
        if self._ahead is not None and is_open:
            await done(self._ahead.under_way)
            self._ahead = None
        return not is_open

    def _plain_controls(self, step: Step) -> np.ndarray | None:
        """For a stack that picks tokens by itself, if no sequence asks for more than it can."""
        if not self._stack.picks:
            return None
        return plain_controls([part.sequence for part in step.completing])

    def _hold_late(self, step: Step, logits_BV: Tensor, chosen: list[int]) -> None:
        """Keep the logits of sequences whose grammar has not answered yet."""
        if len(chosen) == len(step.completing):
            return
        for row, part in enumerate(step.completing):
            sequence = part.sequence
            if sequence.finished or row in chosen:
                continue
            if not torch.isfinite(logits_BV[row]).all():
                self._outcomes.emit(
                    sequence, SamplingFailed("the model produced NaN or infinite logits")
                )
                continue
            self.scheduler.tables.publish(sequence)  # other prompts need not wait for its grammar
            self.waits.served(sequence)
            self._masks.hold(sequence, logits_BV[row].clone())
            self._metrics.late_masks.inc()

    async def _sample_late(self) -> None:
        """Sample sequences whose grammars have answered since."""
        ready = self._masks.take_ready()
        if not ready:
            return
        self._tell()
        sequences = [sequence for sequence, _ in ready]
        try:
            logits_BV = torch.stack([logits_V for _, logits_V in ready])
            tokens = await self._sample(logits_BV, sequences)
            for sequence, token in zip(sequences, tokens, strict=True):
                self._outcomes.emit(sequence, token)
        except Exception as error:  # our bug: fail these requests, keep serving the others
            if is_fatal(error):
                raise
            log.exception("sampling failed")
            for sequence in sequences:
                self.finish(sequence, _OUR_BUG)

    async def _sample(
        self, logits_BV: Tensor, sequences: list[Sequence], picked: list[int] | None = None
    ) -> list[EmittedToken | SamplingFailed]:
        """Any of the sequences may end meanwhile."""
        work = partial(
            sample,
            logits_BV,
            sequences,
            missing_ids=self._missing_ids,
            banned=banned_rows(sequences),
            picked=picked,
        )
        are_known = picked is not None and min(picked, default=0) >= 0
        return await self._stack.run(are_known or self._stack.samples_at_once(len(sequences)), work)

    async def _prepare_blocks(self, plan: list[Slice]) -> None:
        """Copy and clear blocks before the step that `plan` is. The plan is read at once."""
        tables, cache = self.scheduler.tables, self._stack.cache
        blocks = partly_filled(plan, tables.block_size) if self._stack.reads_unwritten else []
        moves = tables.take_moves()
        crosses = not all(isinstance(move, BlockCopy) for move in moves)
        if crosses:
            self._tell()
        try:
            await self._stack.run(not crosses, partial(make_moves, moves, cache, self._host_memory))
        except Exception as error:
            if not is_fatal(error):
                self._forget_moves()
            raise
        if blocks:
            cache.clear(blocks)

    def _forget_moves(self) -> None:
        """Nobody knows which were made: forget the slots, and end who was to get rows by them."""
        self.scheduler.tables.forget_host()
        for sequence in list(self.scheduler.running):
            if sequence.keys is not None and sequence.num_checked < sequence.num_computed:
                self.finish(sequence, _OUR_BUG)
