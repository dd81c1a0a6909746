"""For all tests: one compute thread each, the same examples each time, a working interrupt."""

import gc
import os
import signal
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# Without a CUDA device its kernels run in Triton's interpreter, which must be asked for before any
# test imports Triton.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Suites on few cores must not fight themselves.
torch.set_num_threads(1)

# Python looks for garbage after 700 new objects; a suite makes millions, and most of them stay.
gc.set_threshold(20_000, 20, 20)

# Hypothesis' own profile for CI, here too: the same examples in every run. How long one takes says
# more about the machine than about the code, so no profile has a deadline. The fast suite tries a
# quarter of a test's examples, the slow one all of them (tests/support/examples.py).
settings.register_profile("few", settings.get_profile("ci"), max_examples=25)
settings.register_profile("random", settings.get_profile("default"), deadline=None)
settings.load_profile("few")

# A shell that starts its jobs in the background has them ignore the interrupt, and so would every
# process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What the modules and tests are made of stays: nobody need look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def same_numbers() -> Iterator[None]:
    """The same random tensors in every run; the same number of threads, on which sums depend."""
    torch.manual_seed(0)
    yield
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
