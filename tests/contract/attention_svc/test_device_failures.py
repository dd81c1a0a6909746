"""An attention service whose memory or device fails ends with one line; callers go on elsewhere."""

import asyncio
import logging

import pytest
import torch

from attention_svc.activations import ActivationCounts
from attention_svc.config import AttentionConfig
from attention_svc.engine import engine as engine_module
from attention_svc.loaded import LoadedModel
from attention_svc.metrics import AttentionMetrics
from attention_svc.running import RunningEngine
from attention_svc.service import AttentionService
from moe_model.tiny import write_tiny
from tests.support.attention_svc.sequences import sequence

LOST = torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered\nAdvice")
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> AttentionConfig:
    folder = tmp_path_factory.mktemp("failing") / "model"
    write_tiny(folder)
    return AttentionConfig(
        model=folder,
        transport="in_process",
        kv_memory="4MiB",
        listen="127.0.0.1:0",
        ops_listen="127.0.0.1:0",
    )


@pytest.mark.parametrize("error", [LOST, FULL, MemoryError()])
@pytest.mark.parametrize("where", ["step", "sampling"])
async def test_the_engine_ends_and_its_sequences_can_go_on_elsewhere(
    config: AttentionConfig, error: Exception, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LoadedModel(config)
    activations = ActivationCounts(model.config.num_layers, model.config.num_experts)
    running = RunningEngine(config, model, activations, AttentionMetrics(activations), "a")

    async def fail(*_: object) -> None:
        raise error

    def fail_at_once(*_: object, **__: object) -> None:
        raise error

    if where == "step":
        monkeypatch.setattr(running.engine._stack, "forward", fail)
    else:
        monkeypatch.setattr(engine_module, "sample", fail_at_once)
    ours = sequence([5, 6, 7], vocab=model.config.vocab_size, max_tokens=4)
    task = running.start()
    running.engine.add(ours)
    with pytest.raises(type(error)):
        await asyncio.wait_for(task, 20)
    await asyncio.sleep(0)  # the task's callbacks
    assert ours.finished
    assert running.readiness() == (False, "draining")
    await running.close()


async def test_a_failure_while_loading_is_one_line_and_an_exit(
    config: AttentionConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise FULL

    monkeypatch.setattr(RunningEngine, "_make_engine", fail)
    service = AttentionService(config)
    assert await asyncio.wait_for(service.run(), 20) == 1
    (line,) = (one for one in caplog.records if one.levelno == logging.CRITICAL)
    assert line.getMessage().startswith("loading failed on cpu: OutOfMemoryError: CUDA out of mem")
    assert line.exc_info is None


async def test_a_failure_while_serving_is_one_line_and_an_exit(
    config: AttentionConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(self: object) -> None:
        raise LOST

    monkeypatch.setattr(engine_module.Engine, "run", fail)
    assert await asyncio.wait_for(AttentionService(config).run(), 20) == 1
    (line,) = (one for one in caplog.records if one.levelno == logging.CRITICAL)
    assert line.getMessage() == (
        "the engine stopped on cpu: AcceleratorError: CUDA error: uncorrectable ECC error"
        " encountered"
    )
    assert line.exc_info is None
