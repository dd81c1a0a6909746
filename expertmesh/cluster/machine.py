"""What does this machine offer? Cores (within cgroup limits), CPU features, ports, open files."""

import os
import resource
import socket
from pathlib import Path

from rpc.process.memory import CGROUP, own_folders, read_text

CPU_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_bf16",
    "avx512_vnni",
    "avx_vnni",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
)
"""x86 instruction sets that decide how fast experts are computed."""


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may use, by its affinity and cgroup CPU quota; at least 1."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    quota = _cpu_quota(cgroup)
    return max(1, min(cores, int(quota)) if quota is not None else cores)


def cpu_features() -> dict[str, bool]:
    """Which of CPU_FEATURES the processor reports; all False without /proc/cpuinfo."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return dict.fromkeys(CPU_FEATURES, False)
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    flags = set(line.partition(":")[2].split())
    return {feature: feature in flags for feature in CPU_FEATURES}


def port_problem(port: int, host: str = "127.0.0.1") -> str | None:
    """Why nothing can listen on `host`:`port`; None if something can (port 0: any free one)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers set it: a port in TIME_WAIT counts as free, one with a listener does not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror
    return None


def file_limit() -> int:
    """Open files allowed per process (soft limit); negative: no limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _cpu_quota(cgroup: Path) -> float | None:
    """CPUs granted by cgroup v2 `cpu.max` or v1 `cpu.cfs_quota_us`; None without a quota."""
    pairs = []
    for folder in own_folders(cgroup, "cpu"):
        text = read_text(folder / "cpu.max")
        if text is not None:
            pairs.append(tuple(text.split()[:2]))
        quota, period = (
            read_text(folder / "cpu.cfs_quota_us"),
            read_text(folder / "cpu.cfs_period_us"),
        )
        if quota is not None and period is not None:
            pairs.append((quota, period))
    granted = [
        int(quota) / int(period)
        for quota, period in pairs
        if quota.isdecimal() and period.isdecimal() and int(period) > 0
    ]
    return min(granted, default=None)
