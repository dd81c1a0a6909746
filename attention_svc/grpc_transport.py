"""Dispatch and combine over gRPC: one message per pool and layer, sums added in pool order."""

import asyncio
import itertools
import math

import numpy as np
import torch
from torch import Tensor

from attention_svc.metrics import AttentionMetrics
from attention_svc.pool_link import PendingCall, PoolLink
from attention_svc.pool_set import PoolSet
from attention_svc.transport import ExpertsUnavailable, HopTimes
from protos import expert_pb2
from rpc.tensor_codec import decode_into, encode, tensor_bytes


class GrpcTransport:
    """Sends each row once to every pool that serves one of its experts."""

    def __init__(self, pools: PoolSet, metrics: AttentionMetrics):
        self.pools = pools
        self._metrics = metrics
        self._call_ids = itertools.count(1)
        self._splits: dict[tuple[int, int], bytes] = {}

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
        if not math.isfinite(topk_weights_TK.sum().item()):
            # A row of NaN (routing makes NaN weights of it) would have the pool refuse everyone's
            # rows. Its sequence keeps the NaN in its residual and fails at the sampler, alone.
            hidden_TD = torch.nan_to_num(hidden_TD)
            topk_weights_TK = torch.nan_to_num(topk_weights_TK)
        ticket = GrpcTicket(self._metrics, timeout_s, hidden_TD.shape)
        try:
            if owners.sole is not None:
                # No numpy here: its code is rarely warm, and a decode hop feels it.
                request = self._request(
                    layer_idx, timeout_s, is_decode, hidden_TD,
                    self._even_splits(*topk_ids_TK.shape),
                    tensor_bytes(topk_ids_TK), tensor_bytes(topk_weights_TK),
                )  # fmt: skip
                ticket.add(owners.sole, request, None)
                return ticket
            ids_TK, weights_TK = topk_ids_TK.numpy(), topk_weights_TK.numpy()
            owner_TK = owners.owner_E[ids_TK]
            if owner_TK.min() < 0:
                expert_id = int(ids_TK[owner_TK < 0][0])
                raise ExpertsUnavailable(f"no pool serves layer {layer_idx} expert {expert_id}")
            for index, link in enumerate(owners.links):
                mine_TK = owner_TK == index
                rows = np.flatnonzero(mine_TK.any(axis=1))
                if not rows.size:
                    continue
                mine_NK = mine_TK[rows]
                splits_N = np.zeros(rows.size + 1, dtype="<i4")
                np.cumsum(mine_NK.sum(axis=1), out=splits_N[1:])
                rows_N = torch.from_numpy(rows)
                request = self._request(
                    layer_idx, timeout_s, is_decode, hidden_TD[rows_N], splits_N.tobytes(),
                    ids_TK[rows][mine_NK].tobytes(), weights_TK[rows][mine_NK].tobytes(),
                )  # fmt: skip
                ticket.add(link, request, rows_N)
        except ExpertsUnavailable:
            ticket.abandon()
            raise
        return ticket

    def _request(
        self,
        layer_idx: int,
        timeout_s: float,
        is_decode: bool,
        hidden_ND: Tensor,
        row_splits: bytes,
        expert_ids: bytes,
        weights: bytes,
    ) -> expert_pb2.ExecuteRequest:
        """One pool's message, built in one go: field by field costs three times as much."""
        return expert_pb2.ExecuteRequest(
            execute=expert_pb2.Execute(
                call_id=next(self._call_ids),
                layer_idx=layer_idx,
                phase=expert_pb2.PHASE_DECODE if is_decode else expert_pb2.PHASE_PREFILL,
                timeout_ms=max(1, int(timeout_s * 1000)),
                topology_version=self.pools.version,
                combine=expert_pb2.COMBINE_SUM,
                hidden=encode(hidden_ND),
                row_splits=row_splits,
                expert_ids=expert_ids,
                weights=weights,
            )
        )

    def _even_splits(self, num_rows: int, top_k: int) -> bytes:
        """row_splits of rows with `top_k` pairs each."""
        key = (num_rows, top_k)
        if key not in self._splits:
            if len(self._splits) > 4096:
                self._splits.clear()
            self._splits[key] = (np.arange(num_rows + 1) * top_k).astype("<i4").tobytes()
        return self._splits[key]


class GrpcTicket:
    """The calls of one layer, one per pool, in ascending pool id."""

    def __init__(self, metrics: AttentionMetrics, timeout_s: float, shape: torch.Size):
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._num_rows, self._hidden_size = shape
        self._parts: list[tuple[PoolLink, int, PendingCall, Tensor | None]] = []

    def add(
        self, link: PoolLink, request: expert_pb2.ExecuteRequest, rows_N: Tensor | None
    ) -> None:
        """Send a message; `rows_N` are its rows' places (None: all rows, in order)."""
        execute = request.execute
        call = link.execute(request, execute.call_id, execute.hidden.shape[0])
        self._parts.append((link, execute.call_id, call, rows_N))

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
        direct = len(self._parts) == 1 and self._parts[0][3] is None and out_TD.is_cpu
        sums_TD = out_TD if direct else torch.zeros(self._num_rows, self._hidden_size)
        # A timer, not asyncio.wait_for: it would add a task to every hop.
        timer = asyncio.get_running_loop().call_later(self._timeout_s, self._expire)
        try:
            for link, _, call, rows_N in self._parts:
                answer = await call.future
                if direct:
                    self._read(link, answer.result, out_TD)
                else:
                    part_ND = torch.empty(call.num_rows, self._hidden_size)
                    self._read(link, answer.result, part_ND)
                    sums_TD[slice(None) if rows_N is None else rows_N] += part_ND
                self._account(times, link, call, answer.result, answer.round_trip_s)
        finally:
            timer.cancel()
            self.abandon()
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

    def _read(self, link: PoolLink, result: expert_pb2.Result, part_ND: Tensor) -> None:
        """Copy the partial sums, checked: a corrupt answer must never reach a token."""
        try:
            decode_into(result.rows, part_ND, field="rows")
            if not math.isfinite(part_ND.sum().item()) and not torch.isfinite(part_ND).all():
                raise ValueError("rows holds NaN or infinity")
        except ValueError as error:
            raise ExpertsUnavailable(
                f"pool {link.pool_id} sent a corrupt answer: {error}"
            ) from None

    def _account(
        self,
        times: HopTimes,
        link: PoolLink,
        call: PendingCall,
        result: expert_pb2.Result,
        round_trip_s: float,
    ) -> None:
        queue_s, compute_s = result.queue_us / 1e6, result.compute_us / 1e6
        if round_trip_s > times.round_trip_s:
            times.round_trip_s, times.queue_s, times.compute_s = round_trip_s, queue_s, compute_s
        self._metrics.observe_hop(
            link.pool_id,
            round_trip_s=round_trip_s,
            queue_s=queue_s,
            compute_s=compute_s,
            num_rows=call.num_rows,
        )
