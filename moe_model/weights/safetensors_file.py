"""Is this safetensors file sound, and where are its tensors? A strict, memory-mapped reader.

Everything the header claims is checked against the file before anything is
used: bounds, order, overlaps, gaps, dtype and shape against byte counts. A bad
file is one ValueError that names the file and the tensor.
"""

import json
import math
import mmap
import os
import struct
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Views of the read-only map are never written to; torch warns about each of them otherwise.
warnings.filterwarnings("ignore", message="The given buffer is not writable")

MAX_HEADER_BYTES = 100 * 1024 * 1024
MAX_TENSORS = 1_000_000
MAX_NAME_LENGTH = 500
ALIGNMENT = 64

_DTYPES: dict[str, tuple[torch.dtype, int]] = {
    "F32": (torch.float32, 4),
    "F16": (torch.float16, 2),
    "BF16": (torch.bfloat16, 2),
    "F8_E4M3": (torch.float8_e4m3fn, 1),
    "I64": (torch.int64, 8),
    "I32": (torch.int32, 4),
    "U8": (torch.uint8, 1),
}


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """Where a tensor lies within its file."""

    dtype: str  # safetensors' name, e.g. "F8_E4M3"
    shape: tuple[int, ...]
    start: int  # absolute byte offset in the file
    end: int


class SafetensorsFile:
    """A mapped file; `tensor` gives read-only views that cost no memory of their own."""

    def __init__(self, path: Path):
        """Map and check `path`. Raises ValueError naming the file."""
        self.path = path
        try:
            with open(path, "rb") as file:
                size_bytes = os.fstat(file.fileno()).st_size
                if size_bytes < 8:
                    raise ValueError(f"{path}: {size_bytes} bytes is too short for safetensors")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror or error}") from None
        self.entries = read_entries(path, self._map, size_bytes)

    def raw(self, name: str) -> memoryview:
        """The tensor's bytes as stored."""
        entry = self.entries[name]
        return memoryview(self._map)[entry.start : entry.end]

    def view(self) -> memoryview:
        """The whole file's bytes, mapped."""
        return memoryview(self._map)

    def tensor(self, name: str) -> Tensor:
        """A view of the mapped bytes; must not be written to."""
        entry = self.entries[name]
        dtype, itemsize = _DTYPES[entry.dtype]
        count = (entry.end - entry.start) // itemsize
        if count == 0:
            return torch.empty(entry.shape, dtype=dtype)
        flat = torch.frombuffer(self._map, dtype=dtype, count=count, offset=entry.start)
        return flat.view(entry.shape)

    def read_ahead(self, name: str) -> None:
        """Tell the kernel that the tensor's pages are needed soon: it reads them meanwhile."""
        entry = self.entries[name]
        first = entry.start // mmap.PAGESIZE * mmap.PAGESIZE
        if entry.end > first:
            self._map.madvise(mmap.MADV_WILLNEED, first, entry.end - first)

    def drop_cache(self, name: str) -> None:
        """Tell the kernel that the tensor's pages are no longer needed in memory."""
        entry = self.entries[name]
        page = mmap.PAGESIZE
        first, last = -(-entry.start // page) * page, entry.end // page * page
        if last > first:
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)


def read_entries(path: Path, data: mmap.mmap | bytes, size_bytes: int) -> dict[str, TensorEntry]:
    """Check a header. `data` begins as the file does and holds at least the header; the file has
    `size_bytes`. Raises ValueError naming `path`."""
    (header_bytes,) = struct.unpack("<Q", data[:8])
    if header_bytes < 2 or header_bytes > MAX_HEADER_BYTES or 8 + header_bytes > size_bytes:
        raise ValueError(
            f"{path}: header length {header_bytes} does not fit a file of {size_bytes} bytes "
            f"(limit {MAX_HEADER_BYTES})"
        )
    text = data[8 : 8 + header_bytes]
    if text[:1] != b"{":
        raise ValueError(f"{path}: header does not start with '{{'")
    try:
        header = json.loads(text, object_pairs_hook=_unique_keys)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: header is not valid JSON ({error})") from None
    if len(header) > MAX_TENSORS:
        raise ValueError(f"{path}: {len(header)} tensors; at most {MAX_TENSORS} are accepted")
    data_start = 8 + header_bytes
    entries = {
        name: _entry(path, name, value, data_start)
        for name, value in header.items()
        if name != "__metadata__"
    }
    position, previous = data_start, "the header"
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != position:
            word = "overlaps" if entry.start < position else "leaves a gap after"
            raise ValueError(f"{path}: tensor {name} {word} {previous}")
        position, previous = entry.end, name
    if position != size_bytes:
        raise ValueError(
            f"{path}: tensors end at byte {position} but the file has {size_bytes}; "
            + ("truncated?" if position > size_bytes else "trailing bytes")
        )
    return entries


def write_shard(
    path: Path,
    tensors: Mapping[str, tuple[str, tuple[int, ...], int]],
    chunks: Iterable[bytes | memoryview],
) -> None:
    """Write a file whose data begins at a multiple of 64 bytes, as the kernels read it.

    Args:
        tensors: name -> dtype, shape and bytes, in the order of the data.
        chunks: the data.
    """
    header, position = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        offsets = [position, position + size]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        position += size
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    replace_file(path, chain([struct.pack("<Q", len(text)) + text], chunks))


def replace_file(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write beside, then rename: what has the final name is complete."""
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("wb") as file:
        file.writelines(chunks)
    os.replace(unfinished, path)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate names")
    return result


def _entry(path: Path, name: str, value: Any, data_start: int) -> TensorEntry:
    if len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise ValueError(f"{path}: a tensor's name is unprintable or too long: {_shown(name)}")
    where = f"{path}: tensor {name}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{where}: expected dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"{where}: dtype {_shown(dtype)} is not one of {', '.join(_DTYPES)}")
    if not _counts(shape) or len(shape) > 8:
        raise ValueError(f"{where}: shape {_shown(shape)} is not a list of at most 8 sizes")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{where}: data_offsets {_shown(offsets)} are not two ascending positions")
    expected = math.prod(shape) * _DTYPES[dtype][1]
    if offsets[1] - offsets[0] != expected:
        raise ValueError(
            f"{where}: {offsets[1] - offsets[0]} bytes stored, but {dtype} {shape} needs {expected}"
        )
    return TensorEntry(
        dtype=dtype, shape=tuple(shape), start=data_start + offsets[0], end=data_start + offsets[1]
    )


def _shown(value: Any) -> str:
    """For an error's one line, whatever the file says."""
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + "..."


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 2**62
        for item in values
    )
