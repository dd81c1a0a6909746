"""Byte sizes as people write them: 512MiB, 48GiB, 2e9."""

import re

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
