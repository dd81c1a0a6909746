"""An engine that closes leaves nothing behind that a GPU still writes to."""

import asyncio
import dataclasses
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from attention_svc import running as running_module
from attention_svc.activations import ActivationCounts
from attention_svc.config import AttentionConfig
from attention_svc.loaded import LoadedModel
from attention_svc.metrics import AttentionMetrics
from attention_svc.running import RunningEngine
from moe_model.tiny import write_tiny
from tests.support.moe_model.fake_gpus import H200, gpus


@pytest.fixture
def running(tmp_path: Path) -> RunningEngine:
    """On a GPU, as far as closing knows."""
    write_tiny(tmp_path)
    model = LoadedModel(AttentionConfig(model=tmp_path, transport="in_process", kv_memory="4MiB"))
    activations = ActivationCounts(model.config.num_layers, model.config.num_experts)
    made = RunningEngine(model._flags, model, activations, AttentionMetrics(activations), "a")
    (card,) = gpus(H200)().found
    model.place = dataclasses.replace(model.place, device=card.device, gpu=card)
    return made


def wait_by(monkeypatch: pytest.MonkeyPatch, wait: Callable[[str], None]) -> None:
    monkeypatch.setattr(running_module, "wait_for_device", wait)


async def test_it_waits_for_its_compute_thread_and_then_for_the_device(
    running: RunningEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, order = threading.Event(), []
    wait_by(monkeypatch, order.append)
    running._compute_thread.submit(lambda: order.append(f"computed {goes_on.wait(20)}"))
    closing = asyncio.create_task(running.close())
    await asyncio.sleep(0.05)
    assert not closing.done()
    goes_on.set()
    await asyncio.wait_for(closing, 20)
    assert order == ["computed True", "cuda:0"]


async def test_a_device_that_has_failed_is_told_in_one_line(
    running: RunningEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(device: str) -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure\nAdvice")

    wait_by(monkeypatch, fail)
    await asyncio.wait_for(running.close(), 20)
    (line,) = (one for one in caplog.records if one.levelno == logging.WARNING)
    assert line.getMessage() == (
        "closing on cuda:0: AcceleratorError: CUDA error: unspecified launch failure"
    )


async def test_a_device_that_hangs_does_not_hold_it_up_for_ever(
    running: RunningEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers = threading.Event()
    wait_by(monkeypatch, lambda device: answers.wait(20) and None)
    monkeypatch.setattr(running_module, "CLOSE_WAIT_S", 0.05)
    await asyncio.wait_for(running.close(), 10)
    answers.set()
    assert "cuda:0 is not done after 0.05 s" in caplog.text
