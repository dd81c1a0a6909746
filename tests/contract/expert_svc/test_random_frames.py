"""Random frames: each is answered, right or with an error, and the next call is served."""

import asyncio
import itertools
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st

from protos import expert_pb2, tensor_pb2
from tests.support.examples import examples
from tests.support.expert_svc.execute_harness import (
    EXPERTS,
    LAYERS,
    MAX_ROWS,
    NOT_HELD,
    TOP_K,
    WAIT_S,
    Caller,
    D,
    calling,
    execute_frame,
    expected_sums,
    float32,
    int32,
    rows_of,
    running_pool,
)


class LiveCaller:
    """A pool and a caller on a loop in a thread of their own, for synchronous tests."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))
        self._thread.start()
        assert self._ready.wait(WAIT_S)

    async def _run(self) -> None:
        async with running_pool() as pool, calling(pool.address) as self._caller:
            self._ready.set()
            await self._stop.wait()

    def exchange(self, frame: expert_pb2.Execute) -> expert_pb2.ExecuteResponse:
        coroutine = self._caller.exchange(frame)
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(WAIT_S)

    @property
    def caller(self) -> Caller:
        return self._caller

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WAIT_S)
        self._loop.close()


@pytest.fixture(scope="module")
def live() -> Iterator[LiveCaller]:
    live = LiveCaller()
    yield live
    live.close()


def sound(frame: expert_pb2.Execute) -> bool:
    """The contract of protos/expert.proto, pair by pair."""
    shape = list(frame.hidden.shape)
    if frame.layer_idx >= LAYERS or frame.phase not in (1, 2) or frame.combine not in (1, 2):
        return False
    if frame.timeout_ms == 0 or frame.hidden.dtype != tensor_pb2.DTYPE_FLOAT32:
        return False
    if len(shape) != 2 or shape[1] != D or not 1 <= shape[0] <= MAX_ROWS:
        return False
    if len(frame.hidden.data) != shape[0] * D * 4:
        return False
    if len(frame.row_splits) != 4 * (shape[0] + 1):
        return False
    splits = struct.unpack(f"<{shape[0] + 1}i", frame.row_splits)
    if splits[0] != 0 or any(a > b for a, b in itertools.pairwise(splits)):
        return False
    if not 1 <= splits[-1] <= shape[0] * TOP_K:
        return False
    if len(frame.expert_ids) != 4 * splits[-1] or len(frame.weights) != 4 * splits[-1]:
        return False
    ids = struct.unpack(f"<{splits[-1]}i", frame.expert_ids)
    if any(not 0 <= i < EXPERTS for i in ids):
        return False
    rows = [ids[a:b] for a, b in itertools.pairwise(splits)]
    if any(list(row) != sorted(set(row)) for row in rows):
        return False
    numbers = struct.unpack(f"<{splits[-1]}f", frame.weights) + struct.unpack(
        f"<{shape[0] * D}f", frame.hidden.data
    )
    return all(abs(x) < float("inf") for x in numbers)


small = st.integers(-2, 12)
edges = st.sampled_from([-(2**31), -(2**31) + 1, -1, 0, 1, 2**31 - 1])
floats = st.floats(-4, 4, width=32) | st.sampled_from([0.0, float("nan"), float("inf")])


@st.composite
def frames(draw: Any) -> expert_pb2.Execute:
    """Mostly sound, each part spoilt now and then."""

    def spoilt() -> bool:
        return draw(st.integers(0, 7)) == 0

    num_rows = draw(st.integers(1, 12))
    counts = [draw(st.integers(0, TOP_K)) for _ in range(num_rows)]
    splits = [sum(counts[:i]) for i in range(num_rows + 1)]
    ids = [i for c in counts for i in sorted(draw(st.permutations(range(EXPERTS)))[:c])]
    weights = [draw(st.floats(-2, 2, width=32)) for _ in ids]
    data = float32([0.25] * (num_rows * D))
    shape = [num_rows, D]
    if spoilt():
        splits[draw(st.integers(0, num_rows))] = draw(small | edges)
    if spoilt() and ids:
        ids[draw(st.integers(0, len(ids) - 1))] = draw(small | edges)
    if spoilt() and ids:
        weights[draw(st.integers(0, len(ids) - 1))] = draw(floats)
    if spoilt():
        shape = draw(st.lists(st.sampled_from([0, 1, 2, D, 2**31, 2**32 - 1]), max_size=4))
    if spoilt():
        data = draw(st.binary(max_size=40)) + data[: draw(st.integers(0, len(data)))]
    fields: dict[str, Any] = {
        "hidden": tensor_pb2.Tensor(dtype=1, shape=shape, data=data),
        "row_splits": int32(splits),
        "expert_ids": int32(ids),
        "weights": float32(weights),
    }
    for name in ("row_splits", "expert_ids", "weights"):
        if spoilt():
            fields[name] = draw(st.binary(max_size=30))
    for name in ("layer_idx", "phase", "combine", "timeout_ms"):
        if spoilt():
            fields[name] = draw(st.sampled_from([0, 1, 2, 3, 2**31 - 1]))
    return execute_frame(**{"timeout_ms": 60_000, **fields})


@examples(250, suppress_health_check=list(HealthCheck))
@given(frame=frames())
@example(frame=execute_frame(row_splits=int32([0, 2**31 - 1, 6])))
def test_a_random_frame_is_answered_exactly_as_the_contract_says(
    live: LiveCaller, frame: expert_pb2.Execute
):
    response = live.exchange(frame)
    if not sound(frame):
        assert response.error.code == expert_pb2.ERROR_CODE_INVALID_ARGUMENT
    elif frame.layer_idx == LAYERS - 1 and NOT_HELD in struct.unpack(
        f"<{len(frame.expert_ids) // 4}i", frame.expert_ids
    ):
        assert response.error.code == expert_pb2.ERROR_CODE_NOT_HOLDING
    elif response.WhichOneof("frame") == "error":  # only time may pass meanwhile
        assert response.error.code == expert_pb2.ERROR_CODE_DEADLINE_EXCEEDED
        assert frame.timeout_ms < 10
    else:
        rows = rows_of(response.result)
        pairs = len(frame.expert_ids) // 4
        assert rows.shape[0] == (frame.hidden.shape[0] if frame.combine == 1 else pairs)
    good = live.exchange(live.caller.call(call_id=2**63))
    assert torch.equal(rows_of(good.result), expected_sums())


@examples(150, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=200), at=st.integers(0, 400))
def test_flipped_bytes_of_a_sound_frame_never_hang_or_crash(live: LiveCaller, data: bytes, at: int):
    wire = bytearray(execute_frame().SerializeToString())
    wire[at % len(wire) : at % len(wire) + len(data)] = data
    try:
        frame = expert_pb2.Execute.FromString(bytes(wire))
    except Exception:
        return  # not a protobuf any more: test_streams.py
    if frame.call_id == 0:
        return  # ends the stream, as protos/expert.proto says
    response = live.exchange(frame)
    answered = getattr(response, response.WhichOneof("frame"))
    assert answered.call_id == frame.call_id
    good = live.exchange(live.caller.call(call_id=2**63))
    assert torch.equal(rows_of(good.result), expected_sums())
