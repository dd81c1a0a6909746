"""How is a Python child of ours called: which interpreter, which modules, which environment?"""

import os
import sys
from pathlib import Path

import expertmesh

NATIVE_CODE = ("EXPERTMESH_NATIVE", "EXPERTMESH_CPU_ISA", "EXPERTMESH_CPU_KERNELS_PATH")
"""Which native code runs: settings without a flag."""


def python_module(module: str, *arguments: str) -> list[str]:
    """The command line of `python -m MODULE`; -P: a folder named like one of ours in the
    working directory must not be run in its place."""
    return [sys.executable, "-P", "-m", module, *arguments]


def child_environment(threads: int | None = None) -> dict[str, str]:
    """Our environment without EXPERTMESH_* (all flags are passed explicitly), but for the native code's.

    The children find the modules where we found them, installed or not. `threads`: limits
    and idling of their OpenMP threads.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in NATIVE_CODE or not name.startswith("EXPERTMESH_")
    }
    root = str(Path(expertmesh.__file__).resolve().parents[1])
    inherited = environment.get("PYTHONPATH", "")
    environment["PYTHONPATH"] = os.pathsep.join(part for part in (inherited, root) if part)
    environment["PYTHONUNBUFFERED"] = "1"
    if threads is not None:
        environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = str(threads)
        # Processes take turns within a step: a spinning thread would steal the other's core.
        environment["OMP_WAIT_POLICY"] = "passive"
    return environment
