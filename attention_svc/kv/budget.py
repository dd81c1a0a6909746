"""How many KV blocks fit into memory, beside what else the service needs?"""

from collections.abc import Callable
from dataclasses import replace

from attention_svc.config import BLOCK_SIZE, AttentionConfig, most_positions
from moe_model.config import ModelConfig
from moe_model.gpus import Gpu, free_bytes
from moe_model.maths.kv_layout import KVLayout, block_bytes
from moe_model.memory_need import MemoryNeed, attention_need, formats_that_fit, room_on
from moe_model.weights.held_formats import HeldFormats
from moe_model.weights.place import Place
from rpc.process.memory import available_memory_bytes
from rpc.process.sizes import format_bytes


def need_on(
    config: AttentionConfig, model: ModelConfig, formats: HeldFormats, device: str
) -> MemoryNeed:
    """What this service takes on a device, before the weights are loaded."""
    return attention_need(
        model,
        device,
        compute_dtype=formats.compute_dtype,
        linears=formats.linears,
        experts=formats.experts if config.transport == "in_process" else "",
        kv_dtype=config.kv_dtype,
        steps=config.steps(model, on_gpu=device.startswith("cuda")),
    )


def why_too_small(
    config: AttentionConfig,
    model: ModelConfig,
    gpu: Gpu,
    formats: HeldFormats,
    free: Callable[[str], int] = free_bytes,
) -> str:
    """Why this service does not fit a GPU, with what would; empty if it does."""
    need, room = need_on(config, model, formats, gpu.device), room_on(gpu, config.gpu_memory, free)
    budget = config.kv_budget(on_gpu=True)
    kv_bytes = budget.size_bytes if budget else 0
    kv_bytes = max(kv_bytes, need.kv_position * BLOCK_SIZE)

    def with_experts(name: str) -> MemoryNeed:
        return need_on(config, model, replace(formats, experts=name), gpu.device)

    def with_linears(name: str) -> MemoryNeed:
        return need_on(config, model, replace(formats, linears=name), gpu.device)

    hints = formats_that_fit("--linear-dtype", formats.linears, with_linears, room.size, kv_bytes)
    if config.transport == "in_process":
        hints += formats_that_fit(
            "--expert-dtype", formats.experts, with_experts, room.size, kv_bytes
        )
    return room.why_not(need, kv_bytes, hints)


def count_blocks(
    config: AttentionConfig,
    model: ModelConfig,
    layout: KVLayout,
    place: Place,
    *,
    free: Callable[[str], int] = free_bytes,
    host_free: Callable[[], int] = available_memory_bytes,
) -> int:
    """Blocks within --kv-memory, before the weights are loaded. Raises ValueError for none."""
    size_bytes = block_bytes(layout, model.num_layers, BLOCK_SIZE)
    need = need_on(config, model, place.formats, place.device)
    on_gpu = place.gpu is not None
    room = host_free() if place.gpu is None else room_on(place.gpu, config.gpu_memory, free).size
    left = max(0, room - need.fixed)
    budget = config.kv_budget(on_gpu=on_gpu)
    longest = config.max_model_len or model.max_position_embeddings
    most = most_positions(config.max_running, longest) // BLOCK_SIZE * size_bytes
    kv_bytes = min(left, most) if budget is None else budget.of(left)
    if kv_bytes < size_bytes:
        told = f", and the rest leaves {left}" if budget is None or budget.share else ""
        raise ValueError(
            f"--kv-memory {config.kv_memory} holds no block; one needs {size_bytes} bytes{told}"
        )
    return kv_bytes // size_bytes


def count_host_slots(
    config: AttentionConfig,
    model: ModelConfig,
    layout: KVLayout,
    place: Place,
    num_blocks: int,
    *,
    host_free: Callable[[], int] = available_memory_bytes,
) -> int:
    """Blocks within --kv-host-memory, before the weights are loaded.

    Raises ValueError for less than one, and for more than weights and KV cache leave.
    """
    if not config.kv_host_bytes:
        return 0
    size_bytes = block_bytes(layout, model.num_layers, BLOCK_SIZE)
    num_slots = config.kv_host_bytes // size_bytes
    named = f"--kv-host-memory {config.kv_host_memory}"
    if not num_slots:
        raise ValueError(f"{named} holds no block; one needs {size_bytes} bytes")
    left = host_free()
    if place.gpu is None:
        left -= need_on(config, model, place.formats, place.device).fixed + num_blocks * size_bytes
    if config.kv_host_bytes > left:
        raise ValueError(f"{named}: only {format_bytes(max(0, left))} of host memory are left")
    return num_slots
