"""What both sandboxes ask of the kernel: refused system calls, limits, counts of tasks."""
