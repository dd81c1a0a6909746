"""How long may all of these tests take, however one hangs?"""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

LIMIT_S = 2400.0
TAKE_DOWN_S = 180.0


@pytest.fixture(scope="session", autouse=True)
def bounded() -> Iterator[None]:
    """After LIMIT_S, interrupt: what was started is taken down. If that hangs too, exit at once."""
    timers = [
        threading.Timer(LIMIT_S, os.kill, (os.getpid(), signal.SIGINT)),
        threading.Timer(LIMIT_S + TAKE_DOWN_S, os._exit, (124,)),
    ]
    for timer in timers:
        timer.daemon = True
        timer.start()
    yield
    for timer in timers:
        timer.cancel()
