"""For all tests: one compute thread each, no example deadlines, and an interrupt that works."""

import signal
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# Suites on few cores must not fight themselves.
torch.set_num_threads(1)

# How long an example takes says more about the machine than about the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# A shell that starts its jobs in the background has them ignore the interrupt, and so would every
# process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Put the number of threads back after a test that changed it: torch's sums depend on it."""
    yield
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
