"""Is there a native library, for which instruction set, with how many threads?

EXPERTMESH_CPU_ISA=avx512|avx2|none forces the choice; EXPERTMESH_CPU_KERNELS_PATH names another
build of the module (`make test-sanitize`).
"""

import functools
import importlib
import importlib.machinery
import importlib.util
import logging
import os
from types import ModuleType
from typing import Any

log = logging.getLogger(__name__)

_NATIVE_VERSION = 7


class Library:
    """The compiled module with its instruction set chosen."""

    def __init__(self, native: ModuleType, isa: str):
        self.native: Any = native
        self.isa = isa
        self.version: int = native.VERSION
        native.use_isa(isa)
        self.format_ids = frozenset(native.formats())

    @property
    def num_threads(self) -> int:
        return self.native.get_threads()

    def set_threads(self, num_threads: int) -> None:
        """Size of the pool, the calling thread included; waits for a running call.

        Raises:
            ValueError: not 1 to 1024.
            RuntimeError: that many threads could not be started; only the caller computes.
        """
        self.native.set_threads(num_threads)


@functools.cache
def load() -> Library | None:
    """The library with one thread for each CPU of this process, or None: torch computes.

    Raises:
        ValueError: EXPERTMESH_CPU_ISA names an instruction set that this CPU lacks.
    """
    wanted = os.environ.get("EXPERTMESH_CPU_ISA", "")
    if wanted not in ("", "none", "avx512", "avx2"):
        raise ValueError(f"EXPERTMESH_CPU_ISA must be avx512, avx2 or none, not {wanted!r}")
    native = None if wanted == "none" else _load_native()
    isas: list[str] = native.isas() if native else []
    if native and wanted and wanted not in isas:
        raise ValueError(
            f"EXPERTMESH_CPU_ISA={wanted}: this CPU has {', '.join(isas) or 'neither'}"
        )
    if native is None or not isas:
        return None
    library = Library(native, wanted or isas[0])
    try:
        library.set_threads(min(len(os.sched_getaffinity(0)), 1024))
    except RuntimeError as error:  # --threads may still ask for fewer
        log.warning("computing with one thread: %s", error)
    return library


def need() -> Library:
    """The library where there is one; callers ask `load` first."""
    library = load()
    if library is None:
        raise RuntimeError(why_not())
    return library


def why_not() -> str:
    """Why `load` gives None."""
    if os.environ.get("EXPERTMESH_CPU_ISA") == "none":
        return "EXPERTMESH_CPU_ISA=none switches the native kernels off"
    if _load_native() is not None:
        return "this CPU has neither AVX-512 (with BF16, VNNI and VBMI) nor AVX2 with FMA"
    return (
        "the native kernels are not built, or from an older source: "
        "install a C++ compiler, then reinstall"
    )


def _load_native() -> ModuleType | None:
    """The compiled module, or None: not built, or built from another source."""
    path = os.environ.get("EXPERTMESH_CPU_KERNELS_PATH")
    if path:
        native = _load_from(path)
    else:
        try:
            native = importlib.import_module("moe_model.kernels.cpu._kernels")
        except ImportError:
            return None
    if getattr(native, "VERSION", 0) != _NATIVE_VERSION:
        log.warning("the CPU kernels are of another version: reinstall the package to rebuild them")
        return None
    return native


def _load_from(path: str) -> ModuleType:
    loader = importlib.machinery.ExtensionFileLoader("_kernels", path)
    spec = importlib.machinery.ModuleSpec("_kernels", loader, origin=path)
    native = importlib.util.module_from_spec(spec)
    loader.exec_module(native)
    return native
