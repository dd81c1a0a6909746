"""For all tests: one compute thread each, patience with busy machines, and an interrupt that works."""

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
    """A test of threads leaves as many as it found: sums of torch's depend on their number."""
    yield
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
