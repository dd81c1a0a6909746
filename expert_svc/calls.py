"""Is this Execute frame sound? Decoding and validation, before anything is computed.

Any peer may be hostile or old: every size is checked against the received bytes
first, and an error says which field is wrong and what is allowed.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from minimax_m2.config import ModelConfig
from protos import expert_pb2, tensor_pb2
from rpc.tensor_codec import decode


@dataclass(slots=True)
class Call:
    """A validated Execute. N rows, M (row, expert) pairs."""

    call_id: int
    layer_idx: int
    is_decode: bool
    deadline_s: float  # on time.monotonic()
    per_pair: bool  # combine = ROWS
    hidden_ND: Tensor
    row_of_pair_M: Tensor  # int64
    expert_ids_M: Tensor  # int64
    weights_M: Tensor  # float32
    received_s: float
    cancelled: bool = field(default=False)

    @property
    def num_rows(self) -> int:
        return self.hidden_ND.shape[0]


class CallReader:
    """Checks frames against one model and this pool's limits."""

    def __init__(
        self, config: ModelConfig, *, wire_dtypes: "frozenset[tensor_pb2.DType]", max_rows: int
    ):
        self._config = config
        self._wire_dtypes = wire_dtypes
        self._max_rows = max_rows

    def read(self, frame: expert_pb2.Execute, received_s: float) -> Call:
        """Raises ValueError naming the field."""
        config = self._config
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
            frame.hidden, field="hidden", dtypes=self._wire_dtypes, shape=(-1, config.hidden_size)
        )
        num_rows = hidden_ND.shape[0]
        if num_rows > self._max_rows:
            raise ValueError(f"hidden has {num_rows} rows; at most {self._max_rows} are accepted")
        # A non-finite element makes the sum non-finite; a finite overflow gets the exact check.
        if not torch.isfinite(hidden_ND.sum()) and not torch.isfinite(hidden_ND).all():
            raise ValueError("hidden holds NaN or infinity")
        rows, ids, weights = self._read_routing(frame, num_rows)
        return Call(
            call_id=frame.call_id,
            layer_idx=frame.layer_idx,
            is_decode=frame.phase == expert_pb2.PHASE_DECODE,
            deadline_s=received_s + frame.timeout_ms / 1000,
            per_pair=frame.combine == expert_pb2.COMBINE_ROWS,
            hidden_ND=hidden_ND,
            row_of_pair_M=torch.from_numpy(rows),
            expert_ids_M=torch.from_numpy(ids),
            weights_M=torch.from_numpy(weights),
            received_s=received_s,
        )

    def _read_routing(
        self, frame: expert_pb2.Execute, num_rows: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row of each pair (int64), expert ids (int64) and weights (float32) from the CSR fields."""
        config = self._config
        if len(frame.row_splits) != 4 * (num_rows + 1):
            raise ValueError(
                f"row_splits has {len(frame.row_splits)} bytes; int32[{num_rows + 1}] is expected"
            )
        splits = np.frombuffer(frame.row_splits, "<i4")
        counts = splits[1:] - splits[:-1]
        num_pairs = int(splits[-1])
        if splits[0] != 0 or counts.min() < 0 or not 1 <= num_pairs <= num_rows * config.top_k:
            raise ValueError(
                "row_splits must start at 0, never descend, and end at 1 to rows * "
                f"{config.top_k} pairs"
            )
        for name, data in (("expert_ids", frame.expert_ids), ("weights", frame.weights)):
            if len(data) != 4 * num_pairs:
                raise ValueError(
                    f"{name} has {len(data)} bytes; {num_pairs} pairs need {4 * num_pairs}"
                )
        ids = np.frombuffer(frame.expert_ids, "<i4").astype(np.int64)
        if ids.min() < 0 or ids.max() >= config.num_experts:
            raise ValueError(f"expert_ids must be in 0..{config.num_experts - 1}")
        rows = np.repeat(np.arange(num_rows, dtype=np.int64), counts)
        order = rows * config.num_experts + ids
        if num_pairs > 1 and (order[1:] <= order[:-1]).any():
            raise ValueError("expert_ids must be strictly ascending within a row")
        weights = np.frombuffer(frame.weights, "<f4").copy()
        if not np.isfinite(weights).all():
            raise ValueError("weights holds NaN or infinity")
        return rows, ids, weights
