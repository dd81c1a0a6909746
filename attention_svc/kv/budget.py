"""How many KV blocks fit into memory?"""

import torch

from attention_svc.config import BLOCK_SIZE, AttentionConfig
from moe_model.config import ModelConfig
from moe_model.formats import attention_bytes, piece_bytes
from moe_model.maths.kv_layout import KVLayout, block_bytes
from moe_model.weights.held_formats import HeldFormats
from rpc.process.memory import available_memory_bytes


def count_blocks(
    config: AttentionConfig,
    model: ModelConfig,
    layout: KVLayout,
    formats: HeldFormats,
    device: torch.device,
) -> int:
    """Blocks within --kv-memory, before the weights are loaded. Raises ValueError for none."""
    size_bytes = block_bytes(layout, model.num_layers, BLOCK_SIZE)
    free_bytes = free_memory_bytes(device) - weight_bytes(config, model, formats)
    num_blocks = config.kv_budget.of(free_bytes) // size_bytes
    if num_blocks < 1:
        raise ValueError(
            f"--kv-memory {config.kv_memory} holds no block; one needs {size_bytes} bytes"
            + (f", and the weights leave {max(0, free_bytes)}" if config.kv_budget.share else "")
        )
    return num_blocks


def free_memory_bytes(device: torch.device) -> int:
    """Of the device for the cache."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_memory_bytes()


def weight_bytes(config: AttentionConfig, model: ModelConfig, formats: HeldFormats) -> int:
    """Weights that this process will load."""
    size_bytes = attention_bytes(model, formats.compute_dtype, formats.linears)
    if config.transport == "in_process":
        size_bytes += model.num_pieces * piece_bytes(model, formats.experts)
    return size_bytes
