"""Is this Execute frame valid? Decoding and validation, before anything is computed.

Only whether rows and weights are finite is checked later, when the computation unpacks them.

Any peer may be hostile or old: every size is checked against the received bytes
first, and an error says which field is wrong and what is allowed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from moe_model.config import ModelConfig
from moe_model.maths.expert_calls import CallRows, Room
from protos import expert_pb2
from rpc.hop.codec import execute_checksum
from rpc.hop.tensor_codec import WIRE_DTYPES, decode

_DECODE = expert_pb2.PHASE_DECODE
_ROWS = expert_pb2.COMBINE_ROWS


class Corrupt(ValueError):
    """The frame was damaged on its way: the caller should send it again."""


@dataclass(slots=True)
class Call:
    """A validated Execute. N rows, M (row, expert) pairs."""

    call_id: int
    layer_idx: int
    is_decode: bool
    deadline_s: float  # on time.monotonic()
    per_pair: bool  # combine = ROWS
    num_rows: int
    unpack: Callable[[Room | None], CallRows]
    """Into memory of its own without a `Room`. Raises ValueError: a row or weight is NaN or
    infinite."""
    received_s: float
    cancelled: bool = False


class FrameReader:
    """Checks frames against one model and this pool's limits."""

    def __init__(
        self, config: ModelConfig, *, dtype: torch.dtype, max_rows: int, native: ModuleType | None
    ):
        """`dtype`: the one that hidden rows must have; `native`: see rpc.hop.codec."""
        self._config = config
        self._dtype = dtype
        self._max_rows = max_rows
        self._native = native
        self._limits = (
            config.num_layers,
            config.num_experts,
            config.top_k,
            config.hidden_size,
            WIRE_DTYPES[dtype],
            max_rows,
        )

    def read_plain(self, frame: bytes, received_s: float) -> Call | None:
        """The call, if the frame is a valid Execute without anything unusual; otherwise None."""
        if self._native is None:
            return None
        found = self._native.check_execute(frame, *self._limits)
        if found is None:
            return None
        call_id, layer_idx, phase, timeout_ms, combine, num_rows, num_pairs, *places = found
        return Call(
            call_id=call_id,
            layer_idx=layer_idx,
            is_decode=phase == _DECODE,
            deadline_s=received_s + timeout_ms / 1000,
            per_pair=combine == _ROWS,
            num_rows=num_rows,
            unpack=partial(self._unpack, frame, num_rows, num_pairs, places),
            received_s=received_s,
        )

    def _room(self, num_rows: int, num_pairs: int) -> CallRows:
        return CallRows(
            hidden_ND=torch.empty((num_rows, self._config.hidden_size), dtype=self._dtype),
            row_of_pair_M=torch.empty(num_pairs, dtype=torch.int64),
            expert_ids_M=torch.empty(num_pairs, dtype=torch.int64),
            weights_M=torch.empty(num_pairs),
        )

    def _unpack(
        self, frame: bytes, num_rows: int, num_pairs: int, places: list[int], room: Room | None
    ) -> CallRows:
        """The values of a frame that `check_execute` accepted; `places` are its last results."""
        assert self._native is not None
        rows = (room or self._room)(num_rows, num_pairs)
        wrong = self._native.unpack_execute(
            frame,
            num_rows,
            num_pairs,
            self._config.hidden_size * self._dtype.itemsize,
            self._dtype == torch.float32,
            *places,
            rows.hidden_ND.data_ptr(),
            rows.row_of_pair_M.data_ptr(),
            rows.expert_ids_M.data_ptr(),
            rows.weights_M.data_ptr(),
        )
        if wrong:
            raise ValueError(f"{('hidden', 'weights')[wrong - 1]} holds NaN or infinity")
        return rows

    def read(self, frame: expert_pb2.Execute, received_s: float) -> Call:
        """Raises ValueError naming the field; Corrupt for a frame that was damaged on its way."""
        config = self._config
        if frame.HasField("checksum") and frame.checksum != execute_checksum(frame):
            raise Corrupt("the frame does not match its checksum")
        if frame.call_id == 0:
            raise ValueError("call_id must be greater than 0")
        if frame.layer_idx >= config.num_layers:
            raise ValueError(f"layer_idx {frame.layer_idx} is not in 0..{config.num_layers - 1}")
        if frame.phase not in (expert_pb2.PHASE_DECODE, expert_pb2.PHASE_PREFILL):
            raise ValueError(f"phase {frame.phase} is neither DECODE nor PREFILL")
        if frame.combine not in (expert_pb2.COMBINE_SUM, expert_pb2.COMBINE_ROWS):
            raise ValueError(f"combine {frame.combine} is neither SUM nor ROWS")
        if frame.timeout_ms == 0:
            raise ValueError("timeout_ms must be greater than 0")
        hidden_ND = decode(
            frame.hidden,
            field="hidden",
            dtypes=(WIRE_DTYPES[self._dtype],),
            shape=(-1, config.hidden_size),
        )
        num_rows = hidden_ND.shape[0]
        if num_rows > self._max_rows:
            raise ValueError(f"hidden has {num_rows} rows; at most {self._max_rows} are accepted")
        rows_M, ids_M = self._read_routing(frame, num_rows)
        weights_M = torch.frombuffer(frame.weights, dtype=torch.float32)
        return Call(
            call_id=frame.call_id,
            layer_idx=frame.layer_idx,
            is_decode=frame.phase == expert_pb2.PHASE_DECODE,
            deadline_s=received_s + frame.timeout_ms / 1000,
            per_pair=frame.combine == expert_pb2.COMBINE_ROWS,
            num_rows=num_rows,
            unpack=lambda _room: _finite(CallRows(hidden_ND, rows_M, ids_M, weights_M)),
            received_s=received_s,
        )

    def _read_routing(self, frame: expert_pb2.Execute, num_rows: int) -> tuple[Tensor, Tensor]:
        """(row of each pair, expert ids), int64 [M]."""
        config = self._config
        _check_size(frame.row_splits, num_rows + 1, "row_splits")
        splits = np.frombuffer(frame.row_splits, "<i4")
        num_pairs, limit = int(splits[-1]), num_rows * config.top_k
        if splits[0] != 0 or not 1 <= num_pairs <= limit:
            raise ValueError(f"row_splits must start at 0 and end at 1 to {limit} pairs")
        counts = splits[1:].astype(np.int64) - splits[:-1]
        if counts.min() < 0:
            raise ValueError("row_splits must never descend")
        _check_size(frame.expert_ids, num_pairs, "expert_ids")
        _check_size(frame.weights, num_pairs, "weights")
        ids = np.frombuffer(frame.expert_ids, "<i4").astype(np.int64)
        rows = np.repeat(np.arange(num_rows, dtype=np.int64), counts)
        previous = np.concatenate(([-1], np.where(rows[1:] == rows[:-1], ids[:-1], -1)))
        wrong = np.flatnonzero((ids <= previous) | (ids >= config.num_experts))
        if wrong.size:
            first = int(ids[wrong[0]])
            if 0 <= first < config.num_experts:
                raise ValueError("expert_ids must be strictly ascending within a row")
            raise ValueError(f"expert_ids: {first} is not in 0..{config.num_experts - 1}")
        return torch.from_numpy(rows), torch.from_numpy(ids)


def _finite(rows: CallRows) -> CallRows:
    """Returns the rows. Raises ValueError when a value is NaN or infinite."""
    for values, name in ((rows.hidden_ND, "hidden"), (rows.weights_M, "weights")):
        # A non-finite element makes the sum non-finite; a sum that overflowed gets the exact check.
        if not math.isfinite(values.sum().item()) and not torch.isfinite(values).all():
            raise ValueError(f"{name} holds NaN or infinity")
    return rows


def _check_size(data: bytes, count: int, field: str) -> None:
    if len(data) != 4 * count:
        raise ValueError(f"{field} has {len(data)} bytes; {count} values need {4 * count}")
