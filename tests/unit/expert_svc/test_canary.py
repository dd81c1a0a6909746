"""A pool notices that its memory or device has failed, and ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch

from expert_svc import canary
from expert_svc.calls import Call
from expert_svc.canary import Canary, WeightsChanged
from expert_svc.compute import run_call
from expert_svc.executor import Deliver, Executor
from expert_svc.metrics import ExpertMetrics
from expert_svc.weight_store import WeightStore
from moe_model.backends.choice import choose_backend
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from moe_model.weights.manifest import build_manifest
from rpc.mesh.pieces import Pieces
from tests.support.moe_model.tiny_sizes import FEW_PIECES

HELD = Pieces([(0, 1), (0, 3), (1, 2), (1, 4)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("canary") / "model"
    write_tiny(path, seed=2, fp8=True, **FEW_PIECES)
    return path


class Watched:
    """A store under watch, its tasks and what they did."""

    def __init__(self, store: WeightStore):
        self.store = store
        self.metrics = ExpertMetrics()
        self.executor = Executor(lambda call: run_call(call, store), inline_rows=1)
        canary_ = Canary(store, self.executor, self.metrics, period_s=0.02)
        self.computing = asyncio.create_task(self.executor.run())
        self.watching = asyncio.create_task(canary_.run())

    @property
    def checked(self) -> float:
        return self.metrics.registry.get_sample_value("expertmesh_pool_canary_checks_total") or 0.0

    async def rounds(self, count: int) -> None:
        target = self.checked + count * max(1, len(self.store.pieces))
        async with asyncio.timeout(10):
            while self.checked < target and not self.watching.done():
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def watched(folder: Path, dtype: torch.dtype, weight_format: str) -> AsyncIterator[Watched]:
    checkpoint = Checkpoint.open(folder)
    store = WeightStore(
        checkpoint, build_manifest(checkpoint), choose_backend(dtype), weight_format=weight_format
    )
    store.load(HELD)
    found = Watched(store)
    try:
        yield found
    finally:
        for task in (found.computing, found.watching):
            task.cancel()
        await asyncio.gather(found.computing, found.watching, return_exceptions=True)
        found.executor.close()


FORMATS = [(torch.float32, "f32"), (torch.bfloat16, "bf16"), (torch.bfloat16, "int8")]


@pytest.mark.parametrize(("dtype", "weight_format"), FORMATS, ids=str)
async def test_an_expert_that_changes_in_memory_is_noticed(
    folder: Path, dtype: torch.dtype, weight_format: str
):
    async with watched(folder, dtype, weight_format) as found:
        await found.rounds(2)
        assert not found.watching.done()
        held = found.store.layer(1)
        assert held is not None
        held.weights.move(1, held.weights, 0)  # expert 4 is now expert 2
        await found.rounds(3)
        with pytest.raises(WeightsChanged, match="layer 1 expert 4"):
            found.watching.result()


async def test_a_first_answer_that_is_no_number_is_refused(folder: Path):
    """Otherwise weights damaged before the first round would pass for sound ever after."""
    checkpoint = Checkpoint.open(folder)
    store = WeightStore(checkpoint, build_manifest(checkpoint), choose_backend(torch.float32))
    store.load(HELD)
    executor = Executor(lambda call: run_call(call, store) * float("nan"), inline_rows=1)
    computing = asyncio.create_task(executor.run())
    canary_ = Canary(store, executor, ExpertMetrics(), period_s=0.02)
    with pytest.raises(WeightsChanged, match="layer 0 expert 1 answers a finite row with NaN"):
        await asyncio.wait_for(canary_.run(), 10)
    computing.cancel()
    executor.close()


@pytest.mark.parametrize("period_s", [0, 1e6])
async def test_damage_found_on_suspicion_ends_the_pool_at_once(folder: Path, period_s: float):
    checkpoint = Checkpoint.open(folder)
    store = WeightStore(checkpoint, build_manifest(checkpoint), choose_backend(torch.float32))
    store.load(HELD)
    executor = Executor(lambda call: run_call(call, store), inline_rows=1)
    canary_ = Canary(store, executor, ExpertMetrics(), period_s=period_s)
    tasks = [asyncio.create_task(executor.run()), asyncio.create_task(canary_.run())]
    await canary_.try_now(HELD)
    held = store.layer(1)
    assert held is not None
    held.weights.move(1, held.weights, 0)
    await canary_.try_now([(0, 1), (1, 2)])
    assert not tasks[1].done()
    with pytest.raises(WeightsChanged, match="layer 1 expert 4"):
        await canary_.try_now([(1, 4)])
    with pytest.raises(WeightsChanged, match="layer 1 expert 4"):
        await asyncio.wait_for(tasks[1], 10)
    tasks[0].cancel()
    executor.close()


async def test_answers_may_lie_in_memory_that_the_next_call_overwrites(folder: Path):
    checkpoint = Checkpoint.open(folder)
    store = WeightStore(checkpoint, build_manifest(checkpoint), choose_backend(torch.float32))
    store.load(HELD)

    class Overwriting(Executor):
        def submit(self, caller: str, call: Call, deliver: Deliver) -> None:
            answer = run_call(call, store).clone()
            deliver(call, answer, 0, 0)
            answer.fill_(float("nan"))

    executor = Overwriting(lambda call: None, inline_rows=1)
    await Canary(store, executor, ExpertMetrics(), period_s=0).try_now(HELD)
    executor.close()


async def test_pieces_may_come_and_go_meanwhile(folder: Path):
    async with watched(folder, torch.float32, "f32") as found:
        await found.rounds(2)
        found.store.unload(Pieces([(0, 1), (1, 4)]))
        await found.rounds(2)
        found.store.load(Pieces([(0, 0), (0, 1)]))
        await found.rounds(3)
        found.store.unload(found.store.pieces)
        await asyncio.sleep(2 * canary._IDLE_S)
        assert not found.watching.done()


@pytest.mark.parametrize("inline_rows", [0, 1])
async def test_a_failed_device_ends_the_executor(folder: Path, inline_rows: int):
    def compute(call: object) -> None:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    checkpoint = Checkpoint.open(folder)
    store = WeightStore(checkpoint, build_manifest(checkpoint), choose_backend(torch.float32))
    store.load(HELD)
    executor = Executor(compute, inline_rows=inline_rows)
    computing = asyncio.create_task(executor.run())
    watching = asyncio.create_task(Canary(store, executor, ExpertMetrics(), period_s=0.02).run())
    with pytest.raises(torch.AcceleratorError):
        await asyncio.wait_for(computing, 10)
    watching.cancel()
    executor.close()
