"""What does a folder of packed weights contain? No torch: `expertmesh up` asks before it starts."""

from dataclasses import dataclass
from pathlib import Path

from moe_model.formats import FORMATS, read_format, this_name
from moe_model.json_files import read_json

PACKED_NAME = "expertmesh_packed.json"
LAYOUT_VERSION = 1
"""Increased with every change of a panel layout or of the folder."""
PACKED_FORMATS = tuple(name for name in FORMATS if name != "f32")
MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class PackedHeader:
    """Formats of the experts and of the linears; a digest for each piece and for the rest."""

    format: str
    linear_format: str
    checkpoint_id: str
    digests: dict[str, object]


def is_packed(folder: Path) -> bool:
    """Whether a folder has packed weights, completely written."""
    return (Path(folder) / PACKED_NAME).exists()


def read_header(folder: Path) -> PackedHeader:
    """Raises ValueError naming the file if it is missing, unreadable or of another version."""
    where = Path(folder) / PACKED_NAME
    if not where.exists():
        raise ValueError(f"{folder}: no {PACKED_NAME}: not packed, or not completely")
    raw = read_json(where, limit_bytes=MAX_BYTES)
    if raw.get("layout") != LAYOUT_VERSION:
        raise ValueError(
            f"{where}: layout {raw.get('layout')!r}, but this version reads {LAYOUT_VERSION}: "
            "quantise the checkpoint again"
        )
    for key in ("format", "linear_format"):
        read_format(f"{where}: {key}", str(raw.get(key)), PACKED_FORMATS)
    if not isinstance(raw.get("checkpoint_id"), str):
        raise ValueError(f"{where}: checkpoint_id is missing")
    if not isinstance(raw.get("digests"), dict):
        raise ValueError(f"{where}: digests is missing")
    return PackedHeader(
        format=this_name(raw["format"]),
        linear_format=this_name(raw["linear_format"]),
        checkpoint_id=raw["checkpoint_id"],
        digests=raw["digests"],
    )
