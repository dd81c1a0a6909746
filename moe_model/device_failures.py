"""Which errors mean that memory or the device failed, rather than what was asked of it?"""

import torch

FATAL = (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError)
"""After these no later computation can be trusted: the process has to end."""
FATAL_TEXTS = (
    *("CUDA error", "CUDA driver error", "Triton Error [CUDA]"),
    *("not enough memory", "can't allocate memory"),
)
"""Parts of the texts of RuntimeErrors that mean the same."""


def is_fatal(error: BaseException | None) -> bool:
    """Whether memory or the device failed: exhausted, lost, or with uncorrectable errors."""
    if isinstance(error, FATAL):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in FATAL_TEXTS)


def in_one_line(error: BaseException) -> str:
    """For the last line of a log: torch's texts go on with advice for debugging."""
    first = (str(error).strip() or "out of memory").splitlines()[0]
    return f"{type(error).__name__}: {first}"
