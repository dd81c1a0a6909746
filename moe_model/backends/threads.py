"""How many threads compute? torch's and the native kernels' own: they take turns, never add up."""

import torch

from moe_model.kernels.cpu import library


def set_threads(num_threads: int) -> int:
    """The size of both pools, for a `--threads` flag; 0: all cores. Returns what it is now.

    Raises:
        ValueError: more than can be started here.
    """
    native = library.load()
    if num_threads:
        if native is not None:
            try:
                native.set_threads(num_threads)
            except RuntimeError as error:
                why = "is there a limit on processes or memory?"
                raise ValueError(f"--threads {num_threads}: {error} ({why})") from None
        torch.set_num_threads(num_threads)
    return native.num_threads if native is not None else torch.get_num_threads()
