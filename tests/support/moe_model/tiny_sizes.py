"""Sizes for `write_tiny` that several tests need."""

from typing import Any

ODD: dict[str, Any] = {
    "hidden_size": 160,
    "intermediate_size": 72,
    "num_local_experts": 6,
    "vocab_size": 333,
    "num_hidden_layers": 2,
    "head_dim": 32,
    "rotary_dim": 16,
}
"""Not all are multiples of what a kernel takes at once."""

FEW_PIECES: dict[str, Any] = {
    "num_hidden_layers": 2,
    "num_local_experts": 5,
    "vocab_size": 16,
    "hidden_size": 24,
    "intermediate_size": 20,
}
"""Ten pieces, quickly made and loaded."""
