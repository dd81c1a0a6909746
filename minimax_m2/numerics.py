"""Which arithmetic produced these bits? The numerics_id and the compute dtype."""

import torch

from minimax_m2.config import ModelConfig
from minimax_m2.linear import can_pack


def choose_dtype(flag: str, config: ModelConfig) -> torch.dtype:
    """The compute dtype for a `--dtype` flag: float32, bfloat16, or auto (the model decides)."""
    name = config.auto_dtype if flag == "auto" else flag
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def dtype_name(dtype: torch.dtype) -> str:
    """`float32`, `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def numerics_id(dtype: torch.dtype, device: torch.device | str = "cpu") -> str:
    """Weight format, kernel and instruction set: pools with equal ids are bit-equal replicas."""
    if torch.device(device).type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        isa = f"sm_{major}{minor}"
    else:
        isa = torch.backends.cpu.get_cpu_capability().lower().replace(" ", "-")
    kernel = "onednn" if can_pack(dtype, device) else "torch"
    return f"{dtype_name(dtype)}/{kernel}-{torch.__version__.split('+')[0]}/{isa}"
