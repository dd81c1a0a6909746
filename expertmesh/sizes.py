"""How are byte counts read from flags and shown to people?"""

import re

from expertmesh.console import EXIT_USAGE, CommandError

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def parse_bytes(text: str, flag: str) -> int:
    """`512MiB`, `4GiB`, `300MB`, `1048576`. Raises CommandError naming the flag."""
    found = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None:
        raise CommandError(
            f"{flag}: expected a size such as 512MiB or 4GiB, got {text!r}", EXIT_USAGE
        )
    return int(float(found[1]) * unit)


def format_bytes(count: int) -> str:
    """Three significant figures in binary units."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 100 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
