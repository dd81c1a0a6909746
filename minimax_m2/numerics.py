"""Which compute dtype does a flag mean?"""

import torch

from minimax_m2.config import ModelConfig


def choose_dtype(flag: str, config: ModelConfig) -> torch.dtype:
    """The compute dtype for a `--dtype` flag: float32, bfloat16, or auto (the model decides)."""
    name = config.auto_dtype if flag == "auto" else flag
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def dtype_name(dtype: torch.dtype) -> str:
    """`float32`, `bfloat16`."""
    return str(dtype).removeprefix("torch.")
