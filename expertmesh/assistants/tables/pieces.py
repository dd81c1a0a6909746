"""Which parts of a text file are read, and how do they become lines? Of a large one, samples."""

import codecs
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from expertmesh.assistants.tables.sniff import Encoding

WHOLE_BYTES = 32 << 20
"""Larger files are sampled. No line, whatever it is, takes more memory than this."""
NUM_PIECES = 32
PIECE_BYTES = 512 << 10


@dataclass(frozen=True)
class Piece:
    """Lines that stand together in the file."""

    lines: Iterator[str]
    is_first: bool
    end_bytes: int
    """Where it ends, in what is read of the file."""


def read_bytes_of(size_bytes: int) -> int:
    """How much is read of a file of this size."""
    return size_bytes if size_bytes <= WHOLE_BYTES else NUM_PIECES * PIECE_BYTES


def first_bad_byte(path: Path, most_bytes: int) -> int | None:
    """Where a file stops being UTF-8; None if its first `most_bytes` are. Raises OSError."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    read = 0
    with path.open("rb") as file:
        while data := file.read(min(1 << 20, most_bytes - read)):
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(data)
            except UnicodeDecodeError as error:
                return read - pending + error.start
            read += len(data)
        pending = len(decoder.getstate()[0])
        is_cut = bool(file.read(1))
    return None if is_cut or not pending else read - pending


def pieces_of(path: Path, encoding: Encoding, *, only_head: bool) -> Iterator[Piece]:
    """The whole file; of a large one pieces from all over it, or with `only_head` its beginning.

    Raises OSError.
    """
    size_bytes = path.stat().st_size
    if size_bytes <= WHOLE_BYTES:
        with path.open(encoding=encoding.name, errors=encoding.errors, newline="") as file:
            yield Piece(file, True, size_bytes)
        return
    whole = NUM_PIECES * PIECE_BYTES
    if only_head:
        with path.open("rb") as raw:
            yield Piece(_text(raw.read(whole), encoding, cut_end=True), True, whole)
        return
    for number in range(NUM_PIECES):
        with path.open("rb") as raw:
            raw.seek(number * (size_bytes - PIECE_BYTES) // (NUM_PIECES - 1))
            data = raw.read(PIECE_BYTES)
        if number:
            data = data[data.find(b"\n") + 1 :]
        text = _text(data, encoding, cut_end=number < NUM_PIECES - 1)
        yield Piece(text, number == 0, (number + 1) * PIECE_BYTES)


def can_start_anywhere(encoding: Encoding) -> bool:
    """Whether the byte 10 is the end of a line and nothing else."""
    return not encoding.name.replace("_", "-").startswith(("utf-16", "utf-32", "utf-7"))


def _text(data: bytes, encoding: Encoding, *, cut_end: bool) -> io.StringIO:
    text = data.decode(encoding.name, "replace")
    return io.StringIO(text[: text.rfind("\n") + 1] if cut_end else text, newline="")
