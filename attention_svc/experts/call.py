"""What happens to one layer's call to the experts? Split by pool, moved when a pool fails, summed.

Each part of the call is a set of experts at one pool. A part that fails, or is late while a replica
could be asked, is sent to the replicas at once. Without a replica it is parked until there is one:
no expert is ever skipped. Sums are added in the order of the first plan, whichever pool made them.

One timer, started at the first failure, bounds the call: no retry, answer or returning pool resets
it.
"""

import asyncio
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from attention_svc.experts.call_outcome import CallAnswered, CallFailed
from attention_svc.experts.call_parts import CallContext, CallPart, CallTime
from attention_svc.experts.finite_rows import Rows, set_apart
from attention_svc.experts.health import work_units
from attention_svc.experts.link import SILENCE_LIMIT_S, PoolLink
from attention_svc.experts.transport import ExpertsUnavailable, HopTerms, HopTimes, StepPoisoned
from protos import expert_pb2
from rpc.hop.codec import CallHeader, Dispatch, Sums

RETRY_PAUSE_S = 0.02
"""Between two tries of a parked part to find a holder."""
_DECODE, _PREFILL = expert_pb2.PHASE_DECODE, expert_pb2.PHASE_PREFILL


class ExpertCall:
    """A ticket (attention_svc.experts.transport). Use from the event loop's thread."""

    def __init__(
        self,
        context: CallContext,
        terms: HopTerms,
        layer_idx: int,
        rows: Rows,
        *,
        is_decode: bool,
    ):
        """`rows` are on the CPU."""
        self._context = context
        self._terms = terms
        self._layer_idx = layer_idx
        self._rows = rows
        self._apart_T: Tensor | None = None  # rows sent as zeros; they come back as NaN
        self._phase = _DECODE if is_decode else _PREFILL
        self._loop = asyncio.get_running_loop()
        self._breaks = 0
        self._parts: list[CallPart] = []
        self._time: CallTime | None = None  # None until something fails

    def start(self) -> None:
        """Send every part; park the experts that no pool serves."""
        owners = self._context.pools.layers[self._layer_idx]
        if owners.sole is not None:
            # One pool that serves the whole layer gets every pair: nothing to choose.
            self._add(None, 0, owners.sole)
            return
        for index, link in enumerate(owners.links):
            self._add(owners.owner_E, index, link)
        if not owners.complete:
            part = CallPart(owners.owner_E, -1, self._loop.create_future())
            if self._experts(part):
                self._parts.append(part)
                self._park(part)

    async def wait_into(self, out_TD: Tensor) -> HopTimes:
        """Write the float32 sums of all experts into `out_TD`."""
        times = HopTimes()
        # Checked while the pools compute, not once their answers have arrived.
        direct = Sums(out_TD) if out_TD.is_cpu and out_TD.is_contiguous() else None
        sums, index = direct, 0
        try:
            while index < len(self._parts):
                part = self._parts[index]
                await part.done
                if part is not self._parts[index]:
                    continue  # it was split among several pools: take the first of them
                whole = len(self._parts) == 1 and part.rows is None
                if sums is None or (index == 0 and not whole):
                    # Several parts are added up in zeros: the output may hold anything.
                    sums = Sums(torch.zeros(out_TD.shape))
                if self._take(part, times, sums):
                    index += 1
        except BaseException:
            self.abandon()
            raise
        if self._time is not None:
            self._time.close()
        if sums is not None and sums is not direct:
            out_TD.copy_(sums.out_TD)
        if self._apart_T is not None:
            out_TD[self._apart_T] = torch.nan
        return times

    def abandon(self) -> None:
        """Give up every part; answers that still come are ignored."""
        if self._time is not None:
            self._time.close()
        for part in self._parts:
            self._leave(part)
            if part.done.done() and not part.done.cancelled():
                part.done.exception()  # retrieved, or asyncio logs it: another part's is raised
            part.done.cancel()

    def _take(self, part: CallPart, times: HopTimes, sums: Sums) -> bool:
        """Add a part's answer to `sums`; False when it was corrupt and the part was sent again."""
        answer, link = part.answer, part.link
        assert answer is not None
        assert link is not None
        try:
            self._context.codec.add_rows(answer.result, part.num_rows, part.rows, sums)
        except ValueError as error:  # a corrupt answer must never reach a token
            part.done = self._loop.create_future()
            self._failed(part, CallFailed("corrupt", f"pool {link.pool_id}: {error}"))
            return False
        if self._context.outages.open:
            self._context.outages.over(self._layer_idx, self._experts(part))
        if answer.round_trip_s > times.round_trip_s:
            times.round_trip_s = answer.round_trip_s
            times.queue_s = answer.result.queue_us / 1e6
            times.compute_s = answer.result.compute_us / 1e6
        # The step continues first: the pool's statistics can wait until the loop is next idle.
        self._loop.call_soon(self._observe, part, link, answer)
        return True

    def _observe(self, part: CallPart, link: PoolLink, answer: CallAnswered) -> None:
        """Note how fast the pool was."""
        if part.timer is not None:
            part.timer.cancel()
        queue_s, compute_s = answer.result.queue_us / 1e6, answer.result.compute_us / 1e6
        link.health.answered(answer.round_trip_s, queue_s, compute_s, part.units)
        self._context.budget.earn()
        self._context.metrics.observe_hop(
            link.pool_id, answer.round_trip_s, queue_s, compute_s, part.num_rows
        )

    # ---- sending ----

    def _add(self, owner_E: np.ndarray | None, owner: int, link: PoolLink) -> None:
        """Send a part of the first plan, unless it has no (row, expert) pair."""
        part = CallPart(owner_E, owner, self._loop.create_future())
        call_id = next(self._context.call_ids)
        dispatch = self._build(part, call_id)
        if dispatch is not None:
            self._parts.append(part)
            self._send(part, link, call_id, dispatch)

    def _build(self, part: CallPart, call_id: int) -> Dispatch | None:
        version = self._context.pools.version
        header = CallHeader(call_id, self._layer_idx, self._phase, self._terms.timeout_ms, version)
        build = self._context.codec.build_execute
        try:
            return build(header, *self._rows, part.owner_E, part.owner)
        except ValueError:
            self._set_apart()
            return build(header, *self._rows, part.owner_E, part.owner)

    def _send(self, part: CallPart, link: PoolLink, call_id: int, dispatch: Dispatch) -> None:
        part.answer = None
        part.link, part.call_id, part.rows = link, call_id, dispatch.rows
        part.num_rows, part.sent, part.late_since_s = dispatch.num_rows, self._rows, 0.0
        # The frame leaves first; `_watch` runs while the pool computes.
        link.execute(dispatch.frame, call_id, part.num_rows, partial(self._settled, part))
        self._loop.call_soon(self._watch, part, link, call_id)

    def _watch(self, part: CallPart, link: PoolLink, call_id: int) -> None:
        """Set the timeout of a call that was sent."""
        if part.call_id != call_id or part.link is not link or part.done.done():
            return  # it failed at once, or the call was abandoned
        if part.numerics_id not in ("", link.numerics_id):
            self._context.metrics.numerics_changes.inc()
        part.numerics_id = link.numerics_id
        # Upper bounds: an exact count would cost more than its precision is worth.
        num_pairs = part.num_rows * self._rows[1].shape[1]
        part.units = work_units(num_pairs, min(num_pairs, self._context.pools.num_experts))
        part.timer = self._later(link.health.timeout_s(part.units), part, self._late)

    def _resend(self, part: CallPart, link: PoolLink) -> None:
        if part.broke == (link.pool_id, link.incarnation):
            # The process whose stream broke is alive: the link failed, not these rows.
            self._breaks -= 1
        part.broke = None
        call_id = next(self._context.call_ids)
        dispatch = self._build(part, call_id)
        assert dispatch is not None, "a part that was sent before has pairs"
        self._send(part, link, call_id, dispatch)

    # ---- outcomes ----

    def _later(
        self, delay_s: float, part: CallPart, action: Callable[[CallPart], None]
    ) -> asyncio.TimerHandle:
        return self._loop.call_later(delay_s, self._guarded, part, lambda: action(part))

    def _guarded(self, part: CallPart, action: Callable[[], None]) -> None:
        """An exception in a callback must end the call: nothing else would."""
        try:
            action()
        except Exception as error:  # our bug; the engine logs it with the step
            if not part.done.done():
                part.done.set_exception(error)

    def _settled(self, part: CallPart, outcome: CallAnswered | CallFailed) -> None:
        """`on_done` of the link: an answer, or why there is none."""
        if isinstance(outcome, CallFailed):
            self._guarded(part, lambda: self._failed(part, outcome))
        elif not part.done.done():
            part.answer = outcome
            part.done.set_result(None)

    def _late(self, part: CallPart) -> None:
        """A call takes several times as long as expected: ask a replica if there is one."""
        link = part.link
        assert link is not None
        others = part.tried | {(link, link.generation)}
        if self._context.pools.cover(self._layer_idx, self._experts(part), others) is None:
            # No replica: the link's pings decide whether this pool is alive. If it is but
            # has not answered after SILENCE_LIMIT_S more, it is hung and not slow.
            part.late_since_s = part.late_since_s or self._loop.time()
            is_hung = self._loop.time() - part.late_since_s >= SILENCE_LIMIT_S
            if is_hung:
                if not self._may_wait(part, f"pool {link.pool_id} does not answer"):
                    return
                self._note(part)
            if self._is_wanted(part):
                check_s = min(link.health.timeout_s(part.units), SILENCE_LIMIT_S)
                part.timer = self._later(check_s, part, self._late)
            return
        link.health.late(link.health.timeout_s(part.units))
        self._context.pools.refresh()  # so that the next step does not wait for it too
        self._failed(part, CallFailed("timeout", f"pool {link.pool_id} did not answer in time"))

    def _failed(self, part: CallPart, failure: CallFailed) -> None:
        """Move a part to other pools, or end the call when its rows are the likely cause."""
        link = part.link
        assert link is not None
        self._leave(part)
        part.tried |= {(link, link.generation)}
        self._context.metrics.expert_failures.labels(link.pool_id, failure.kind).inc()
        if failure.kind == "broken":
            self._breaks += 1
            part.broke = (link.pool_id, link.incarnation)
        # Rows that are not finite, if there are any, are set apart; the others may be sent again.
        refused = failure.kind == "refused" and part.sent is self._rows
        poisoned = refused and not self._set_apart()
        if poisoned or self._breaks >= self._terms.max_breaks:
            part.done.set_exception(StepPoisoned(str(failure)))
            return
        self._judge(link, failure)
        if self._may_wait(part, str(failure)):
            self._redispatch(part)

    def _set_apart(self) -> bool:
        """Send rows that are not finite as zeros, so that only their own sequences fail.

        True when there were any.
        """
        self._rows, bad_T = set_apart(self._rows)
        self._apart_T = bad_T if self._apart_T is None else self._apart_T | bad_T
        return bool(bad_T.any())

    def _judge(self, link: PoolLink, failure: CallFailed) -> None:
        """Tell the pool set what the failure says about the pool."""
        pools = self._context.pools
        if failure.kind == "not_holding" and failure.piece is not None:
            pools.lacks(link, *failure.piece)
        elif failure.kind == "draining":
            pools.refuses(link)
        elif failure.kind in ("timeout", "corrupt", "error") and link.health.failed(
            self._loop.time()
        ):
            self._context.metrics.ejections.labels(link.pool_id).inc()
            pools.refresh()

    def _redispatch(self, part: CallPart) -> None:
        pools = self._context.pools
        cover = pools.cover(self._layer_idx, self._experts(part), part.tried)
        if cover is None or not self._context.budget.spend(self._loop.time()):
            self._park(part)
            return
        if len(cover) == 1:
            self._resend(part, cover[0][0])
            return
        # No single pool serves all of them: several parts take this one's place.
        owner_E = np.full(pools.num_experts, -1, dtype=np.int32)
        for index, (_, experts) in enumerate(cover):
            owner_E[experts] = index
        pieces = [
            CallPart(owner_E, index, self._loop.create_future()) for index in range(len(cover))
        ]
        at = self._parts.index(part)
        self._parts[at : at + 1] = pieces
        part.done.set_result(None)  # `wait_into` looks at the list again
        for piece, (link, _) in zip(pieces, cover, strict=True):
            piece.tried, piece.trouble, piece.broke = part.tried, part.trouble, part.broke
            self._resend(piece, link)

    def _park(self, part: CallPart) -> None:
        """Wait until there is a holder, nobody wants the step any more, or time is up."""
        part.link = None
        if not self._may_wait(part, part.trouble or "nobody holds them"):
            return
        assert self._time is not None
        self._time.park()
        self._note(part)
        part.timer = self._later(RETRY_PAUSE_S, part, self._retry)

    def _retry(self, part: CallPart) -> None:
        pools = self._context.pools
        if pools.cover(self._layer_idx, self._experts(part), part.tried) is None:
            # There is no other pool: those that failed are worth another try.
            part.tried = frozenset()
        self._redispatch(part)

    # ---- time limits ----

    def _may_wait(self, part: CallPart, trouble: str) -> bool:
        """Whether a part in trouble may go on; if not, it has been ended."""
        part.trouble = trouble
        if self._time is None:
            experts = self._experts(part)
            self._time = CallTime(
                self._context, self._terms, self._layer_idx, experts, self._expire
            )
        if self._time.expired:
            self._give_up(part)
            return False
        return self._is_wanted(part)

    def _is_wanted(self, part: CallPart) -> bool:
        """Whether any sequence still wants the step; if not, the part has been ended."""
        if self._terms.wanted():
            return True
        self._leave(part)
        part.done.set_exception(ExpertsUnavailable("no sequence of the step is left"))
        return False

    def _expire(self) -> None:
        """Time is up, even for parts whose answer may be on its way."""
        for part in self._parts:
            if not part.done.done():
                self._give_up(part)

    def _give_up(self, part: CallPart) -> None:
        self._leave(part)
        if part.trouble:
            self._note(part)
        assert self._time is not None
        missing = f"layer {self._layer_idx}, experts {self._experts(part)[:8]}"
        why = part.trouble or "other parts of the call"
        part.done.set_exception(
            ExpertsUnavailable(f"no pool for {missing} in {self._time.limit_s:.3g} s: {why}")
        )

    def _note(self, part: CallPart) -> None:
        assert self._time is not None
        self._context.outages.note(
            self._layer_idx, self._experts(part), self._time.began_s, part.trouble
        )

    def _leave(self, part: CallPart) -> None:
        """Stop waiting for a part's call, or for its holder."""
        if part.timer is not None:
            part.timer.cancel()
        if part.link is not None:
            part.link.abandon(part.call_id)

    def _experts(self, part: CallPart) -> list[int]:
        """The experts that the part's pairs name."""
        ids = np.unique(self._rows[1].numpy())
        if part.owner_E is not None:
            ids = ids[part.owner_E[ids] == part.owner]
        return [int(expert_id) for expert_id in ids]
