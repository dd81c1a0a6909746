"""How does a service end when its supervisor is killed? It dies at once.

`python -m expertmesh.cluster.guard PARENT_PID MODULE [FLAGS...]` becomes
`python -m MODULE [FLAGS...]`. On Linux the kernel is asked to send SIGKILL when the thread that
started this process ends: PR_SET_PDEATHSIG survives exec, and the supervisor starts services
from its main thread. Elsewhere a thread of the service watches its parent. The supervisor runs
no code between fork and exec, so its threads do not matter.
"""

import ctypes
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
_PARENT_POLL_S = 0.5


def main(argv: Sequence[str]) -> None:
    """Make this process die with PARENT_PID, then become the service."""
    parent_pid, module, flags = int(argv[0]), argv[1], list(argv[2:])
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # survives exec; services reload on it
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
        _leave_if_orphan(parent_pid)  # it may have died before the kernel was asked
        os.execv(sys.executable, [sys.executable, "-P", "-m", module, *flags])
    threading.Thread(target=_watch, args=(parent_pid,), name="guard", daemon=True).start()
    sys.argv = [module, *flags]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _leave_if_orphan(parent_pid: int) -> None:
    if os.getppid() != parent_pid:
        os._exit(1)


def _watch(parent_pid: int) -> None:
    while True:
        _leave_if_orphan(parent_pid)
        time.sleep(_PARENT_POLL_S)


if __name__ == "__main__":
    main(sys.argv[1:])
