"""How do rows become an Execute frame, and a Result frame rows? Bytes in, bytes out.

In C where the package was built with a compiler (rpc/hop/native/hop.c), otherwise with protobuf and
numpy. Those also handle, in both cases, every frame that is not a plain valid one.
"""

import logging
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from protos import expert_pb2
from rpc.hop.tensor_codec import WIRE_DTYPES, decode, decode_into, encode, tensor_bytes

log = logging.getLogger(__name__)

_NATIVE_VERSION = 3


def load_native() -> ModuleType | None:
    """The compiled module; None if it is not built, of another version, or EXPERTMESH_NATIVE=0."""
    if os.environ.get("EXPERTMESH_NATIVE") == "0":
        return None
    try:
        from rpc.hop import _hop  # type: ignore[attr-defined, unused-ignore]
    except ImportError:
        return None
    if getattr(_hop, "VERSION", 0) != _NATIVE_VERSION:
        log.warning("rpc.hop._hop has another version: reinstall the package to rebuild it")
        return None
    return _hop  # type: ignore[no-any-return, unused-ignore]


def to_bytes(frame: Any) -> bytes:
    """A frame for the wire: bytes stay as they are, a message is serialised."""
    return frame if type(frame) is bytes else frame.SerializeToString()


class CallHeader(NamedTuple):
    """The scalars of an Execute, in the order of its fields."""

    call_id: int
    layer_idx: int
    phase: int
    timeout_ms: int
    topology_version: int
    combine: int = expert_pb2.COMBINE_SUM


class Dispatch(NamedTuple):
    """A frame for one pool. `rows`: int32 bytes, the indices of the rows in it; None: all rows."""

    frame: bytes
    rows: bytes | None
    num_rows: int


class ResultFrame(NamedTuple):
    """A Result whose rows are still in the received bytes, or in the parsed message."""

    call_id: int
    queue_us: int
    compute_us: int
    num_rows: int = 0
    hidden_size: int = 0
    offset: int = 0  # of float32 rows in `frame`
    frame: bytes = b""
    message: expert_pb2.Result | None = None  # instead of the four fields above


class Sums:
    """Where partial sums are added: a float32 [T, D] tensor on the CPU, contiguous.

    Its address and shape are read here, while the answer is still on its way: later the step would
    wait for them (docs/cold-caches.md).
    """

    __slots__ = ("address", "hidden_size", "num_rows", "out_TD")

    def __init__(self, out_TD: Tensor):
        self.out_TD = out_TD
        self.address = out_TD.data_ptr()
        self.num_rows, self.hidden_size = out_TD.shape


_make = tuple.__new__
"""Makes a named tuple without its constructor's Python frame: see docs/cold-caches.md."""


class HopCodec:
    """Codec for both ends of a hop. `native`: the compiled module; None: protobuf and numpy."""

    def __init__(self, native: ModuleType | None):
        self.native: Any = native

    @classmethod
    def best(cls) -> "HopCodec":
        """With the compiled module, if there is one."""
        return cls(load_native())

    def build_execute(
        self,
        header: CallHeader,
        hidden_TD: Tensor,
        ids_TK: Tensor,
        weights_TK: Tensor,
        owner_E: np.ndarray | None = None,
        owner: int = 0,
    ) -> Dispatch | None:
        """The frame for the one pool that serves all experts, or for pool `owner` of `owner_E`.

        Args:
            hidden_TD: a wire dtype; on the CPU and contiguous, like the other tensors.
            ids_TK: int32, ascending within a row.
            weights_TK: float32.
            owner_E: int32 [E], which pool serves each expert (-1: none).

        Returns:
            None when the pool has no pair.

        Raises:
            ValueError: a weight is NaN or infinite.
        """
        if self.native is None:
            return _build_execute(header, hidden_TD, ids_TK, weights_TK, owner_E, owner)
        assert ids_TK.dtype is torch.int32
        assert weights_TK.dtype is torch.float32
        num_rows, hidden_size = hidden_TD.shape
        built = self.native.build_execute(
            *header,
            WIRE_DTYPES[hidden_TD.dtype],
            num_rows,
            hidden_size,
            ids_TK.shape[1],
            hidden_TD.data_ptr(),
            ids_TK.data_ptr(),
            weights_TK.data_ptr(),
            0 if owner_E is None else owner_E.ctypes.data,
            owner & 0xFFFFFFFF,
        )
        if built is None:
            return None
        frame, rows = built
        return _make(Dispatch, (frame, rows, num_rows if rows is None else len(rows) // 4))

    def build_result(
        self,
        call_id: int,
        queue_us: int,
        compute_us: int,
        rows: Tensor,
        *,
        overflowed: bool = False,
    ) -> bytes | None:
        """The answer's frame; `rows` on the CPU.

        None when a row is not finite, unless `overflowed` says that the call itself is the cause.
        """
        rows = rows.contiguous()
        if self.native is not None and not overflowed:
            return self.native.build_result(
                call_id, queue_us, compute_us, WIRE_DTYPES[rows.dtype], *rows.shape, rows.data_ptr()
            )
        if not overflowed and not torch.isfinite(rows).all():
            return None
        result = expert_pb2.Result(
            call_id=call_id,
            rows=encode(rows),
            queue_us=queue_us,
            compute_us=compute_us,
            overflowed=overflowed,
        )
        result.checksum = result_checksum(result)
        return expert_pb2.ExecuteResponse(result=result).SerializeToString()

    def read_result(self, frame: bytes) -> ResultFrame | None:
        """Read a plain valid float32 Result; None for any other frame."""
        if self.native is None:
            return None
        found = self.native.check_result(frame)
        return None if found is None else _make(ResultFrame, (*found, None))

    def add_rows(self, result: ResultFrame, num_rows: int, rows: bytes | None, sums: Sums) -> None:
        """Copy the partial sums into `sums` (`rows` None), or add them to the rows named.

        Args:
            num_rows: how many rows were sent.

        Raises:
            ValueError: the shape is not the expected one, or values are not finite without
                `Result.overflowed`; `sums` is unchanged.
        """
        if result.message is not None:
            _add_rows(result.message, num_rows, rows, sums.out_TD)
            return
        if result.num_rows != num_rows or result.hidden_size != sums.hidden_size:
            got = [result.num_rows, result.hidden_size]
            raise ValueError(f"rows.shape {got} is not {[num_rows, sums.hidden_size]}")
        if not self.native.add_rows(
            result.frame,
            result.offset,
            num_rows,
            sums.hidden_size,
            rows,
            sums.address,
            sums.num_rows,
        ):
            raise ValueError(_NOT_FINITE)


_NOT_FINITE = "rows holds NaN or infinity"


def checksum(numbers: Sequence[int], *parts: bytes) -> int:
    """See Execute.checksum in protos/expert.proto; `numbers` are 32-bit words."""
    padded = b"".join(part + bytes(-len(part) % 4) for part in parts)
    words = np.concatenate((np.array(numbers, dtype="<u4"), np.frombuffer(padded, "<u4")))
    words = words.astype(np.uint64)  # sums wrap at 2**64, a multiple of 2**32
    low = int(words.sum()) & 0xFFFFFFFF
    high = int((words * np.arange(len(words), 0, -1, dtype=np.uint64)).sum()) & 0xFFFFFFFF
    return high << 32 | low


def execute_checksum(frame: expert_pb2.Execute) -> int:
    return checksum(
        (*_halves(frame.call_id), frame.layer_idx, frame.phase, frame.combine),
        frame.hidden.data,
        frame.row_splits,
        frame.expert_ids,
        frame.weights,
    )


def result_checksum(message: expert_pb2.Result) -> int:
    return checksum(_halves(message.call_id), message.rows.data)


def _halves(number: int) -> tuple[int, int]:
    return number & 0xFFFFFFFF, number >> 32


def result_of(message: expert_pb2.Result) -> ResultFrame:
    """A parsed Result; its rows are not checked yet, `add_rows` does it."""
    return ResultFrame(message.call_id, message.queue_us, message.compute_us, message=message)


def _build_execute(
    header: CallHeader,
    hidden_TD: Tensor,
    ids_TK: Tensor,
    weights_TK: Tensor,
    owner_E: np.ndarray | None,
    owner: int,
) -> Dispatch | None:
    if not torch.isfinite(weights_TK).all():
        raise ValueError("weights holds NaN or infinity")
    num_rows, top_k = ids_TK.shape
    if owner_E is None:
        rows, splits = None, np.arange(num_rows + 1) * top_k
        ids, weights = tensor_bytes(ids_TK), tensor_bytes(weights_TK)
    else:
        mine_TK = owner_E[ids_TK.numpy()] == owner
        kept = np.flatnonzero(mine_TK.any(axis=1))
        if not kept.size:
            return None
        splits = np.concatenate(([0], np.cumsum(mine_TK[kept].sum(axis=1))))
        ids, weights = ids_TK.numpy()[mine_TK].tobytes(), weights_TK.numpy()[mine_TK].tobytes()
        hidden_TD, rows = hidden_TD[torch.from_numpy(kept)], kept.astype("<i4").tobytes()
    execute = expert_pb2.Execute(
        **header._asdict(),
        hidden=encode(hidden_TD),
        row_splits=splits.astype("<i4").tobytes(),
        expert_ids=ids,
        weights=weights,
    )
    execute.checksum = execute_checksum(execute)
    frame = expert_pb2.ExecuteRequest(execute=execute).SerializeToString()
    return Dispatch(frame, rows, num_rows if rows is None else len(rows) // 4)


def _add_rows(
    message: expert_pb2.Result, num_rows: int, rows: bytes | None, out_TD: Tensor
) -> None:
    if message.HasField("checksum") and message.checksum != result_checksum(message):
        raise ValueError("rows do not match their checksum")
    part_ND = decode(
        message.rows,
        field="rows",
        dtypes=(WIRE_DTYPES[torch.float32],),
        shape=(num_rows, out_TD.shape[1]),
    )
    if not message.overflowed and not torch.isfinite(part_ND).all():
        raise ValueError(_NOT_FINITE)
    if rows is None:
        decode_into(message.rows, out_TD, field="rows")
    else:
        # Rows are distinct: plain indexing adds each once.
        out_TD[torch.from_numpy(np.frombuffer(rows, "<i4").astype(np.int64))] += part_ND
