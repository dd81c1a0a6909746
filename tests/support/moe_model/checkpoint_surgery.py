"""Damaged checkpoints: write a sound one, then cut."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moe_model.tiny import write_tiny

SINGLE = "model-00001-of-00001.safetensors"
INDEX = "model.safetensors.index.json"
SMALL: dict[str, Any] = {
    "num_hidden_layers": 2,
    "num_local_experts": 3,
    "vocab_size": 16,
    "hidden_size": 24,
    "intermediate_size": 20,
}
W1 = "model.layers.1.block_sparse_moe.experts.2.w1.weight"


def write_small(folder: Path, *, fp8: bool = True, shards: int = 1, **changes: Any) -> Path:
    """A checkpoint of two layers and three experts."""
    write_tiny(folder, seed=5, fp8=fp8, shards=shards, **{**SMALL, **changes})
    return folder


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    """Rewrite the single shard and its index after `change` of its tensors."""
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE)
    write_index(folder, dict.fromkeys(tensors, SINGLE))


def write_index(folder: Path, weight_map: dict[str, Any]) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def read_index(folder: Path) -> dict[str, str]:
    return json.loads((folder / INDEX).read_text())["weight_map"]


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header and what follows it."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def with_header(header: dict[str, Any] | bytes | str, body: bytes) -> bytes:
    """A file of a header, as it is or as JSON, and a body."""
    text = json.dumps(header) if isinstance(header, dict) else header
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw + body


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def flip_byte(folder: Path, name: str, offset: int = 0) -> None:
    """Change one stored byte of a tensor."""
    path = folder / (read_index(folder)[name])
    header, body = header_of(path)
    start = path.stat().st_size - len(body) + header[name]["data_offsets"][0] + offset
    with open(path, "r+b") as file:
        file.seek(start)
        (value,) = file.read(1)
        file.seek(start)
        file.write(bytes([value ^ 1]))


def fp8(values: Tensor) -> Tensor:
    return values.to(torch.float8_e4m3fn)
