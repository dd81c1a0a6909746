"""How are Python child processes started: which interpreter, modules and environment?"""

import os
import sys
from pathlib import Path

import expertmesh

WITHOUT_FLAG = (
    *("EXPERTMESH_NATIVE", "EXPERTMESH_CPU_ISA", "EXPERTMESH_CPU_KERNELS_PATH"),
    "EXPERTMESH_RESPONSE_STORE_URL",
)
"""Settings that are no flag: they choose the native code, or are secret. Children inherit them."""


def python_module(module: str, *arguments: str) -> list[str]:
    """The command line of `python -m MODULE`.

    -P: a folder in the working directory with the name of one of our modules must not be run.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def child_environment(threads: int | None = None) -> dict[str, str]:
    """Our environment without EXPERTMESH_* (flags are passed explicitly) except WITHOUT_FLAG.

    Children find our modules where this process found them, installed or not. `threads`: the
    number of their OpenMP threads.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in WITHOUT_FLAG or not name.startswith("EXPERTMESH_")
    }
    root = str(Path(expertmesh.__file__).resolve().parents[1])
    inherited = environment.get("PYTHONPATH", "")
    environment["PYTHONPATH"] = os.pathsep.join(part for part in (inherited, root) if part)
    environment["PYTHONUNBUFFERED"] = "1"
    if threads is not None:
        environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = str(threads)
        # Processes take turns within a step: a spinning thread would take a core from the others.
        environment["OMP_WAIT_POLICY"] = "passive"
    return environment
