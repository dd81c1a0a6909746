"""Which limits does the kernel keep for each process of a command?

They are the hard stop behind the watchdog, which adds up what all of them use.
"""

import math
import platform
import re

from expertmesh.agent.sandbox.policy import Limits

TASKS_PER_PROCESS = 4
"""The kernel counts threads, and a process may have some."""
MEMORY_FACTOR = 4
"""Reserved memory that is not used yet counts here, too."""


def rlimits(limits: Limits, others_tasks: int) -> dict[str, int]:
    """Name, as in `prlimit` and in RLIMIT_*, -> value. `others_tasks`: counted, but not ours."""
    return {
        "nproc": others_tasks + TASKS_PER_PROCESS * limits.processes,
        "fsize": limits.file_bytes,
        "cpu": math.ceil(limits.cpu_s) + 1,
        "data": MEMORY_FACTOR * limits.memory_bytes,
        "core": 1,  # none, not even through a crash handler (core(5))
    }


def counts_by_namespace() -> bool:
    """Whether a user namespace starts counting tasks at 0; since Linux 5.14."""
    version = re.match(r"(\d+)\.(\d+)", platform.release())
    return version is not None and (int(version[1]), int(version[2])) >= (5, 14)
