"""How are byte sizes read from flags, and how are they shown?

512MiB, 48GiB, 2e9, or 30% of what is free.
"""

import re
from dataclasses import dataclass

_UNITS = {
    "": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip


def parse_bytes(text: str, field: str) -> int | None:
    """Bytes, or None for an empty text. Raises ValueError naming `field`."""
    if not text:
        return None
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?(?:[eE][0-9]{1,2})?)\s*([A-Za-z]*)\s*", text)
    if not match or match[2].upper() not in _UNITS:
        raise ValueError(f"{field}: expected a size like 512MiB or 48GiB, got {text!r}")
    size_bytes = int(float(match[1]) * _UNITS[match[2].upper()])
    if size_bytes < 1:
        raise ValueError(f"{field}: must be more than zero, got {text!r}")
    return size_bytes


def format_bytes(count: int) -> str:
    """Two to four significant figures in binary units."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 100 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


@dataclass(frozen=True)
class MemoryBudget:
    """A size, or a share of the memory that is free."""

    size_bytes: int = 0
    share: float = 0.0

    @classmethod
    def parse(cls, text: str, field: str) -> "MemoryBudget":
        """Raises ValueError naming `field`."""
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*%\s*", text)
        if match:
            if not 0 < float(match[1]) < 100:
                raise ValueError(f"{field}: a share must be above 0% and below 100%, got {text!r}")
            return cls(share=float(match[1]) / 100)
        try:
            size_bytes = parse_bytes(text, field)
        except ValueError as error:
            raise ValueError(f"{error}; a share of free memory is written like 30%") from None
        if size_bytes is None:
            raise ValueError(f"{field}: expected a size like 512MiB or a share like 30%")
        return cls(size_bytes=size_bytes)

    def of(self, free_bytes: int) -> int:
        """The budget in bytes when `free_bytes` are free."""
        return int(self.share * max(0, free_bytes)) if self.share else self.size_bytes
