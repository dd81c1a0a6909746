"""Dispatch and combine over gRPC: one message per pool and layer, sums added in pool order."""

import asyncio
import itertools

import torch
from torch import Tensor

from attention_svc.metrics import AttentionMetrics
from attention_svc.pool_link import Answer, PendingCall, PoolLink
from attention_svc.pool_set import LayerOwners, PoolSet
from attention_svc.transport import ExpertsUnavailable, HopTimes
from protos import expert_pb2
from rpc.hop_codec import CallHeader, Dispatch, HopCodec


class GrpcTransport:
    """Sends each row once to every pool that serves one of its experts."""

    def __init__(self, pools: PoolSet, metrics: AttentionMetrics, codec: HopCodec):
        self.pools = pools
        self._metrics = metrics
        self._codec = codec
        self._call_ids = itertools.count(1)

    def ready(self) -> tuple[bool, str]:
        missing = self.pools.missing()
        if not missing:
            return True, ""
        total = sum(missing.values())
        layers = ", ".join(str(layer_idx) for layer_idx in list(missing)[:8])
        more = ", ..." if len(missing) > 8 else ""
        return False, f"no pool serves {total} pieces (layers {layers}{more})"

    def submit(
        self,
        layer_idx: int,
        hidden_TD: Tensor,
        topk_ids_TK: Tensor,
        topk_weights_TK: Tensor,
        timeout_s: float,
        *,
        is_decode: bool,
    ) -> "GrpcTicket":
        owners = self.pools.layers[layer_idx]
        if not hidden_TD.is_cpu:
            hidden_TD, topk_ids_TK = hidden_TD.cpu(), topk_ids_TK.cpu()
            topk_weights_TK = topk_weights_TK.cpu()
        if not owners.complete:
            self._check_owned(layer_idx, owners, topk_ids_TK)
        # One pool that serves the whole layer gets every pair: nothing to choose.
        owner_E = owners.owner_E if owners.sole is None else None
        phase = expert_pb2.PHASE_DECODE if is_decode else expert_pb2.PHASE_PREFILL
        timeout_ms = max(1, int(timeout_s * 1000))
        ticket = GrpcTicket(self._metrics, self._codec, timeout_s, hidden_TD.shape)
        try:
            for index, link in enumerate(owners.links):
                call_id = next(self._call_ids)
                header = CallHeader(call_id, layer_idx, phase, timeout_ms, self.pools.version)
                try:
                    dispatch = self._codec.build_execute(
                        header, hidden_TD, topk_ids_TK, topk_weights_TK, owner_E, index
                    )
                except ValueError:
                    # A row of NaN (routing makes NaN weights of it) would have the pool refuse
                    # everyone's rows. Its sequence keeps the NaN in its residual and fails at the
                    # sampler, alone.
                    hidden_TD = torch.nan_to_num(hidden_TD)
                    topk_weights_TK = torch.nan_to_num(topk_weights_TK)
                    dispatch = self._codec.build_execute(
                        header, hidden_TD, topk_ids_TK, topk_weights_TK, owner_E, index
                    )
                if dispatch is not None:
                    ticket.add(link, call_id, dispatch)
        except ExpertsUnavailable:
            ticket.abandon()
            raise
        return ticket

    def _check_owned(self, layer_idx: int, owners: LayerOwners, topk_ids_TK: Tensor) -> None:
        """Raises ExpertsUnavailable when a wanted expert has no owner."""
        ids_TK = topk_ids_TK.numpy()
        unowned = ids_TK[owners.owner_E[ids_TK] < 0]
        if unowned.size:
            raise ExpertsUnavailable(f"no pool serves layer {layer_idx} expert {unowned[0]}")


class GrpcTicket:
    """The calls of one layer, one per pool, in ascending pool id."""

    def __init__(
        self, metrics: AttentionMetrics, codec: HopCodec, timeout_s: float, shape: torch.Size
    ):
        self._metrics = metrics
        self._codec = codec
        self._timeout_s = timeout_s
        self._num_rows, self._hidden_size = shape
        self._parts: list[tuple[PoolLink, int, PendingCall, bytes | None]] = []

    def add(self, link: PoolLink, call_id: int, dispatch: Dispatch) -> None:
        """Send a message."""
        call = link.execute(dispatch.frame, call_id, dispatch.num_rows(self._num_rows))
        self._parts.append((link, call_id, call, dispatch.rows))

    def abandon(self) -> None:
        """Give up every part; late answers are ignored."""
        for link, call_id, call, _ in self._parts:
            link.abandon(call_id)
            if call.future.done() and not call.future.cancelled():
                call.future.exception()  # retrieved: another part's failure was reported
            call.future.cancel()

    async def wait_into(self, out_TD: Tensor) -> HopTimes:
        times = HopTimes()
        # Sums of several pools, and results for another device, go through a buffer of our own.
        whole = len(self._parts) == 1 and self._parts[0][3] is None
        direct = whole and out_TD.is_cpu and out_TD.is_contiguous()
        sums_TD = out_TD if direct else torch.zeros(self._num_rows, self._hidden_size)
        # A timer, not asyncio.wait_for: it would add a task to every hop.
        timer = asyncio.get_running_loop().call_later(self._timeout_s, self._expire)
        try:
            for link, _, call, rows in self._parts:
                answer = await call.future
                try:
                    # A corrupt answer must never reach a token.
                    self._codec.add_rows(answer.result, call.num_rows, rows, sums_TD)
                except ValueError as error:
                    raise ExpertsUnavailable(
                        f"pool {link.pool_id} sent a corrupt answer: {error}"
                    ) from None
                self._account(times, link, call, answer)
        except BaseException:
            self.abandon()
            raise
        finally:
            timer.cancel()
        if not direct:
            out_TD.copy_(sums_TD)
        return times

    def _expire(self) -> None:
        for link, call_id, call, _ in self._parts:
            if not call.future.done():
                call.future.set_exception(
                    ExpertsUnavailable(
                        f"pool {link.pool_id} did not answer within {self._timeout_s:.1f} s"
                    )
                )
                link.abandon(call_id)

    def _account(self, times: HopTimes, link: PoolLink, call: PendingCall, answer: Answer) -> None:
        queue_s, compute_s = answer.result.queue_us / 1e6, answer.result.compute_us / 1e6
        if answer.round_trip_s > times.round_trip_s:
            times.round_trip_s = answer.round_trip_s
            times.queue_s, times.compute_s = queue_s, compute_s
        self._metrics.observe_hop(
            link.pool_id,
            round_trip_s=answer.round_trip_s,
            queue_s=queue_s,
            compute_s=compute_s,
            num_rows=call.num_rows,
        )
