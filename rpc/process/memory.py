"""How much memory may this process still take, within the limits of its container?"""

from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


def available_memory_bytes(cgroup: Path = CGROUP) -> int:
    """The available memory, or what a cgroup limit leaves of it."""
    available = psutil.virtual_memory().available
    room = _cgroup_room(cgroup)
    return available if room is None else max(0, min(available, room))


def own_folders(cgroup: Path, controller: str) -> list[Path]:
    """Folders whose limits may bind us: our own group and its ancestors, v2 and v1 layouts."""
    roots = {cgroup: "", cgroup / controller: controller}
    folders = []
    for line in (read_text(Path("/proc/self/cgroup")) or "").splitlines():
        _, names, path = line.split(":", 2)
        for root, wanted in roots.items():
            if wanted in names.split(","):
                inner = root / path.lstrip("/")
                folders += [inner, *[parent for parent in inner.parents if root in parent.parents]]
    return [*folders, *roots]


def read_text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _cgroup_room(cgroup: Path) -> int | None:
    """Bytes left below the tightest memory limit, v2 or v1; None without a limit."""
    rooms = []
    for folder in own_folders(cgroup, "memory"):
        for limit_name, usage_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, usage = read_text(folder / limit_name), read_text(folder / usage_name)
            if limit is not None and usage is not None and limit.isdecimal():
                reclaimable = _inactive_file_bytes(folder / "memory.stat")
                rooms.append(int(limit) - int(usage) + reclaimable)
    return min(rooms, default=None)


def _inactive_file_bytes(stat: Path) -> int:
    """Page cache that the kernel reclaims first (`inactive_file` of memory.stat)."""
    for line in (read_text(stat) or "").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and value.isdecimal():
            return int(value)
    return 0
