"""Which arithmetic produced these bits? The numerics_id and the compute dtype."""

import torch


def choose_dtype(flag: str, config_dtype: str) -> torch.dtype:
    """The compute dtype for a `--dtype` flag.

    "auto" is bfloat16 for a model stored that way when the processor multiplies
    bfloat16 in hardware, else float32.
    """
    if flag == "float32":
        return torch.float32
    if flag == "bfloat16":
        return torch.bfloat16
    capability = torch.backends.cpu.get_cpu_capability()
    has_bf16 = capability.startswith("AVX512") and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if has_bf16 and config_dtype == "bfloat16" else torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    """`float32`, `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def numerics_id(dtype: torch.dtype) -> str:
    """Weight format, kernel and instruction set: pools with equal ids are bit-equal replicas."""
    isa = torch.backends.cpu.get_cpu_capability().lower().replace(" ", "-")
    return f"{dtype_name(dtype)}/torch-{torch.__version__.split('+')[0]}/{isa}"
