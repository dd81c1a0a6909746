"""How many threads compute? torch's and the native kernels' own: they take turns, never add up."""

import torch

from minimax_m2.kernels.cpu import library


def set_threads(num_threads: int) -> int:
    """The size of both pools, for a `--threads` flag; 0: all cores. Returns what it is now."""
    native = library.load()
    if num_threads:
        torch.set_num_threads(num_threads)
        if native is not None:
            native.set_threads(num_threads)
    return native.num_threads if native is not None else torch.get_num_threads()
