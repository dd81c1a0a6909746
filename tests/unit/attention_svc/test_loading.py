"""An attention service tells how far it is, what it needs and where it computes, as it starts."""

import asyncio
import logging
import threading
from pathlib import Path

import pytest

from attention_svc import loaded as loaded_module
from attention_svc import running as running_module
from attention_svc.config import BLOCK_SIZE, AttentionConfig
from attention_svc.loaded import LoadedModel
from attention_svc.running import without_server
from moe_model.formats import attention_bytes, kv_position_bytes, piece_bytes
from moe_model.memory_need import gib
from moe_model.tiny import write_tiny
from rpc.process.load_progress import LoadProgress
from tests.support.moe_model.fake_gpus import T4, gpus


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("loading") / "model"
    write_tiny(made)
    return made


def config_of(folder: Path, **given: str) -> AttentionConfig:
    return AttentionConfig(model=folder, transport="in_process", **{"kv_memory": "4MiB", **given})


async def test_all_layers_count_towards_what_was_announced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added: list[int] = []
    monkeypatch.setattr(LoadProgress, "add", lambda self, size_bytes: added.append(size_bytes))
    async with without_server(config_of(folder)) as running:
        config = running.engine._stack.config
    assert len(added) == config.num_pieces + config.num_layers, "each expert, a layer's attention"
    assert all(size > 0 for size in added)


def test_the_start_says_where_it_computes_and_what_it_takes(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    model = LoadedModel(config_of(folder, dtype="bf16"), gpus=gpus(T4))
    lines = [record.getMessage() for record in caplog.records]
    assert any(
        line.startswith("computing on cpu: the CUDA kernels need compute capability 8.0")
        for line in lines
    )
    positions = f"{model.num_blocks * 16:,} positions"
    assert (
        "steps of at most 512 rows (--max-batch-tokens) and 64 sequences (--max-running)" in lines
    )
    assert any(
        line.startswith("memory on cpu: weights ") and line.endswith(positions) for line in lines
    )


def test_what_is_in_use_is_told_beside_what_was_counted(folder: Path) -> None:
    model = LoadedModel(config_of(folder))
    config = model.config
    held = attention_bytes(config, "f32", "f32") + config.num_pieces * piece_bytes(config, "f32")
    held += model.num_blocks * BLOCK_SIZE * kv_position_bytes(config, "f32")
    used = held + 3 * 2**30
    assert model.memory_lines(used, held + 2**30, 2**29) == [
        f"in use on cpu: {gib(used)}, of which 3.0 GiB beside weights, keys and values; 0.0 MiB "
        "were counted",
        "of that, libraries, kernels and other processes 1.5 GiB, 0.0 MiB were counted; tensors "
        "1.0 GiB and torch's allocator 512.0 MiB, together 0.0 MiB were counted",
    ]


def test_a_named_gpu_is_refused_before_anything_is_loaded(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"^--device cuda:1: there are cuda:0 \(Tesla T4"):
        LoadedModel(config_of(folder, device="cuda:1"), gpus=gpus(T4))


async def test_the_threads_that_launch_kernels_take_the_gpu_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def use(device: str) -> None:
        taken.append(threading.current_thread().name.partition("_")[0])

    monkeypatch.setattr(loaded_module, "use", use)
    monkeypatch.setattr(running_module, "use", use)
    async with without_server(config_of(folder)) as running:
        await asyncio.wrap_future(running._compute_thread.submit(lambda: None))
    assert taken[:2] == ["MainThread", "asyncio"], "the loop's, then the one that loads"
    assert "compute" in taken
