"""Cores taken by others."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def starving(longest_s: float, processes: int = 4) -> Iterator[None]:
    """Busy processes that end by themselves even if the test is killed."""
    code = f"import time\nend = time.monotonic() + {longest_s}\nwhile time.monotonic() < end: pass"
    busy = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()
