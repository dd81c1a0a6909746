"""How are configuration files read and replaced, so that none is lost or half written?"""

import contextlib
import os
import stat
import time
from pathlib import Path

from expertmesh.connect.formats.format import UnmergeableError

MAX_BYTES = 4 << 20


def read(path: Path) -> str | None:
    """The text; None where there is no file. Raises UnmergeableError."""
    try:
        if not path.is_file():
            if path.exists():
                raise UnmergeableError("it is no file")
            return None
        if path.stat().st_size > MAX_BYTES:
            raise UnmergeableError(f"it has more than {MAX_BYTES} bytes")
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise UnmergeableError("it is not UTF-8") from None
    except OSError as error:
        raise UnmergeableError(error.strerror or str(error)) from None


def replace(path: Path, old: str | None, new: str, *, private: bool) -> None:
    """Write a file at once or not at all. Raises OSError, also if it is not `old` any more.

    Args:
        path: what a link leads to, not the link.
        private: for the user alone; else it keeps the rights that it had.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(new.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
            if old is not None:
                was = path.stat()
                mode = stat.S_IMODE(was.st_mode)
                os.fchmod(file.fileno(), mode & 0o700 if private else mode)
                if os.geteuid() == 0:
                    os.fchown(file.fileno(), was.st_uid, was.st_gid)
        if _is_now(path) != old:
            raise OSError(f"{path}: changed by somebody else just now; nothing was written")
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise


def keep_copy(folder: Path, path: Path, text: str) -> Path:
    """A copy of a file's text for the user alone, below this folder. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    number = 0
    while True:
        copy = folder / f"{stamp}-{number}-{path.name}"
        try:
            handle = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            number += 1
            continue
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8"))
        return copy


def remove(path: Path, upwards: list[Path]) -> None:
    """Delete a file, and of these folders, the inner ones first, those that are empty then."""
    path.unlink(missing_ok=True)
    for folder in upwards:
        with contextlib.suppress(OSError):  # others have put something there
            folder.rmdir()


def missing_folders(path: Path) -> list[Path]:
    """The folders above a file that do not exist yet, the inner ones first."""
    return [folder for folder in path.parents if not folder.exists()]


def _is_now(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return None
