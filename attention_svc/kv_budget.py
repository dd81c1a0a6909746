"""How many KV blocks does the memory allow?"""

import torch

from attention_svc.config import BLOCK_SIZE, AttentionConfig
from attention_svc.kv_layout import KVLayout, block_bytes
from minimax_m2.config import ModelConfig
from rpc.memory import available_memory_bytes


def count_blocks(
    config: AttentionConfig, model: ModelConfig, layout: KVLayout, device: torch.device
) -> int:
    """Blocks within --kv-memory, before the weights are loaded. Raises ValueError for none."""
    size_bytes = block_bytes(layout, model.num_layers, BLOCK_SIZE)
    free_bytes = free_memory_bytes(device) - weight_bytes(config, model, layout.dtype)
    num_blocks = config.kv_budget.of(free_bytes) // size_bytes
    if num_blocks < 1:
        raise ValueError(
            f"--kv-memory {config.kv_memory} holds no block; one needs {size_bytes} bytes"
            + (f", and the weights leave {max(0, free_bytes)}" if config.kv_budget.share else "")
        )
    return num_blocks


def free_memory_bytes(device: torch.device) -> int:
    """Of the device that the cache will be on."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_memory_bytes()


def weight_bytes(config: AttentionConfig, model: ModelConfig, dtype: torch.dtype) -> int:
    """What this process will load, in the compute dtype."""
    num_params = model.attention_params
    if config.transport == "in_process":
        num_params += model.num_pieces * model.expert_params
    return num_params * dtype.itemsize
