"""Kernels of our own; each folder is for one kind of hardware."""
