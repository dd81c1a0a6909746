"""Triton kernels for GPUs: NVIDIA cards of compute capability 8.0 and later."""
