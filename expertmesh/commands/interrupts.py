"""How does a command end in order when it is interrupted? By Ctrl-C, or by SIGTERM."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C ends the run and not its report."""
    task = asyncio.current_task()
    assert task is not None
    try:
        yield
    except asyncio.CancelledError:
        task.uncancel()


@contextlib.contextmanager
def term_as_interrupt() -> Iterator[None]:
    """SIGTERM ends a run in order, too."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    try:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    except (ValueError, RuntimeError):  # not in the main thread: nobody sends it there
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
