"""Which experts did each row of each step choose? For RecordRouting, while it runs."""

import asyncio
import itertools
from collections.abc import AsyncGenerator

import numpy as np

from attention_svc.activations import ActivationCounts, StepIds
from protos import attention_pb2
from rpc.errors import Overloaded

MAX_RECORDERS = 4
MAX_WAITING_BYTES = 16 * 1024 * 1024
"""Of steps that a slow reader has not taken yet; further ones are counted as lost."""


class Recorder:
    """A queue between the layer loop, which never waits, and one reader."""

    def __init__(self) -> None:
        self._steps: asyncio.Queue[attention_pb2.RecordRoutingResponse] = asyncio.Queue()
        self._waiting_bytes = 0
        self._lost = 0

    def __call__(self, topk_ids: StepIds, is_decode: bool) -> None:
        """A step's [T, K] of each layer."""
        size_bytes = 4 * sum(ids_TK.size for ids_TK in topk_ids)
        if self._waiting_bytes + size_bytes > MAX_WAITING_BYTES:
            self._lost += 1
            return
        ids_TLK = np.asarray(topk_ids).swapaxes(0, 1).astype("<i4")
        self._steps.put_nowait(
            attention_pb2.RecordRoutingResponse(
                is_decode=is_decode,
                num_rows=ids_TLK.shape[0],
                expert_ids=ids_TLK.tobytes(),
                lost_steps=self._lost,
            )
        )
        self._waiting_bytes += size_bytes
        self._lost = 0

    async def take(self) -> attention_pb2.RecordRoutingResponse:
        """The next step."""
        step = await self._steps.get()
        self._waiting_bytes -= len(step.expert_ids)
        return step


async def record(
    activations: ActivationCounts, max_steps: int
) -> AsyncGenerator[attention_pb2.RecordRoutingResponse, None]:
    """The next `max_steps` steps; 0: until the reader leaves. Raises Overloaded."""
    if len(activations.listeners) >= MAX_RECORDERS:
        raise Overloaded(f"{MAX_RECORDERS} recordings are running; try again later")
    recorder = Recorder()
    activations.listeners.append(recorder)
    try:
        for _ in range(max_steps) if max_steps else itertools.count():
            yield await recorder.take()
    finally:
        activations.listeners.remove(recorder)
