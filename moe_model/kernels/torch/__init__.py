"""Kernels of torch and oneDNN: on any device, in every format."""
