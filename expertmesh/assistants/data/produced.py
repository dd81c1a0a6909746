"""What has a script left in its folder? Files with their sizes, and which of them are pictures."""

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

MOST_FILES = 200
_HEAD_BYTES = 1024
_PICTURES = {".png": b"\x89PNG\r\n", ".jpg": b"\xff\xd8\xff", ".jpeg": b"\xff\xd8\xff",
             ".gif": b"GIF8", ".webp": b"RIFF", ".pdf": b"%PDF", ".svg": b"<"}  # fmt: skip


@dataclass(frozen=True)
class Produced:
    """A file below the folder."""

    path: str
    """Relative to the folder, as the script wrote it: it may hold any character."""
    size_bytes: int
    is_picture: bool
    fault: str = ""
    """What is wrong with it, if its name says that it is a picture."""


def find_produced(folder: Path, left_out: Collection[str]) -> tuple[list[Produced], int]:
    """(Files by name, how many more there are). Links and what cannot be read are no files.

    `left_out`: names in the folder itself. Nothing may be writing into the folder any more.
    """
    found: list[Produced] = []
    more = 0
    for path, size_bytes in _files(folder, left_out):
        if len(found) == MOST_FILES:
            more += 1
            continue
        found.append(_judged(path.relative_to(folder), path, size_bytes))
    return sorted(found, key=lambda one: one.path), more


def copy_file(source: Path, target: Path) -> None:
    """A file that a script made, and nothing that it links to. Raises OSError."""
    handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(f"{source}: not a regular file")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as copy:
            while data := file.read(1 << 20):
                copy.write(data)


def _files(folder: Path, left_out: Collection[str]) -> Iterator[tuple[Path, int]]:
    for place, folders, names in os.walk(folder):
        top = Path(place) == folder
        kept = [one for one in folders if one not in ("__pycache__", ".git")]
        folders[:] = sorted(one for one in kept if not (top and one in left_out))
        for name in sorted(names):
            if top and name in left_out:
                continue
            path = Path(place) / name
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                yield path, status.st_size


def _judged(name: Path, path: Path, size_bytes: int) -> Produced:
    shown = str(name)
    magic = _PICTURES.get(name.suffix.lower())
    if magic is None:
        return Produced(shown, size_bytes, False)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        return Produced(shown, size_bytes, False, f"it cannot be read: {error.strerror}")
    if not head:
        return Produced(shown, 0, False, "it is empty")
    is_svg = name.suffix.lower() == ".svg"
    if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(magic) or (
        is_svg and b"<svg" not in head
    ):
        return Produced(shown, size_bytes, False, f"it is no {name.suffix[1:].upper()} picture")
    return Produced(shown, size_bytes, True)
