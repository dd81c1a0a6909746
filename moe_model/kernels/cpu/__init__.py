"""CPU kernels that run at the speed of the memory: packed weights, linear, expert FFN."""
