"""Failures of memory and device are told from those of calls, and told in one line."""

import pytest
import torch

from moe_model.device_failures import in_one_line, is_fatal

ECC = (
    "CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors might be asynchronously "
    "reported at some other API call"
)


@pytest.mark.parametrize(
    ("error", "fatal"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), True),
        (torch.AcceleratorError(ECC), True),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasGemmEx"),
            True,
        ),
        (RuntimeError("CUDA driver error: device not ready"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("CUDA error"), False),
        (None, False),
    ],
)
def test_failures_of_memory_and_device_are_told_from_those_of_calls(
    error: Exception | None, fatal: bool
) -> None:
    assert is_fatal(error) == fatal


def test_the_last_line_is_one_line() -> None:
    told = in_one_line(torch.AcceleratorError(ECC))
    assert told == "AcceleratorError: CUDA error: uncorrectable ECC error encountered"
    assert in_one_line(MemoryError()) == "MemoryError: out of memory"
