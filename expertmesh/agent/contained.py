"""How is a file of a folder reached so that the path cannot lead out of it?

A path is resolved first and must lie inside. Then it is opened folder by folder without following
links, so that one which was swapped in meanwhile is refused, too.
"""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

Parts = tuple[str, ...]
"""Names from the folder down to a file."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class OutsideError(ValueError):
    """The path leads out of the folder, or to what must not be touched."""


class Folder:
    """The files below one folder."""

    def __init__(self, root: Path, protected: Sequence[Path] = ()):
        """`protected`: folders and files of which nothing is readable or writable."""
        self.root = root.resolve(strict=True)
        self._protected = [path.resolve() for path in protected]

    def parts(self, path: str) -> Parts:
        """The names that lead to it, links resolved; () is the folder. Raises OutsideError."""
        if "\0" in path:
            raise OutsideError("the path has a zero byte")
        try:
            found = Path(os.path.realpath(self.root / path))
        except OSError as error:
            raise OutsideError(f"{path}: {error.strerror}") from None
        if not found.is_relative_to(self.root):
            raise OutsideError(f"{path}: this is outside the work folder {self.root}")
        if any(found.is_relative_to(one) for one in self._protected):
            raise OutsideError(f"{path}: this belongs to the agent itself")
        return found.relative_to(self.root).parts

    def read(self, parts: Parts, max_bytes: int) -> bytes:
        """Raises OSError, OutsideError, and ValueError for a file that is larger or none."""
        with self._folder_of(parts) as folder:
            handle = os.open(parts[-1], _FILE, dir_fd=folder)
            with os.fdopen(handle, "rb") as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise ValueError(f"{'/'.join(parts)}: not a regular file")
                data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise ValueError(f"{'/'.join(parts)}: larger than {max_bytes:,} bytes")
        return data

    def stat(self, parts: Parts) -> os.stat_result | None:
        """Of the entry itself, a link not followed; None if there is none."""
        if not parts:
            return self.root.stat()
        try:
            with self._folder_of(parts) as folder:
                return os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
        except (FileNotFoundError, OutsideError):
            return None

    def write(self, parts: Parts, data: bytes, mode: int | None = None) -> None:
        """Replace or make the file, and missing folders; a reader never sees a part of it.

        It keeps its mode, and belongs to the owner of its folder even if root writes.
        Raises OSError, OutsideError.
        """
        with self._folder_of(parts, make=True) as folder:
            with contextlib.suppress(FileNotFoundError):
                old = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
                if stat.S_ISDIR(old.st_mode):
                    raise IsADirectoryError(21, "this is a folder", "/".join(parts))
                mode = stat.S_IMODE(old.st_mode) if mode is None else mode
            new = f".{parts[-1][:100]}.{secrets.token_hex(4)}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(new, flags, 0o666, dir_fd=folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    _give_to_owner_of(folder, handle)
                    if mode is not None:
                        os.fchmod(handle, mode)
                os.replace(new, parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                os.unlink(new, dir_fd=folder)
                raise

    def make_link(self, parts: Parts, target: str) -> None:
        with self._folder_of(parts, make=True) as folder:
            os.symlink(target, parts[-1], dir_fd=folder)

    def make_folder(self, parts: Parts, mode: int) -> None:
        with self._folder_of((*parts, ""), make=True) as folder:
            os.fchmod(folder, mode)

    def set_mode(self, parts: Parts, mode: int) -> None:
        """Of a folder, without reading it: it may be closed to us."""
        with self._folder_of(parts) as folder:
            found = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISLNK(found.st_mode):
                os.chmod(parts[-1], mode, dir_fd=folder)

    def set_time(self, parts: Parts, mtime_ns: int) -> None:
        with self._folder_of(parts) as folder:
            os.utime(parts[-1], ns=(mtime_ns, mtime_ns), dir_fd=folder, follow_symlinks=False)

    def remove(self, parts: Parts) -> None:
        """A file, a link, or an empty folder. Raises OSError."""
        with self._folder_of(parts) as folder:
            found = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                os.rmdir(parts[-1], dir_fd=folder)
            else:
                os.unlink(parts[-1], dir_fd=folder)

    @contextlib.contextmanager
    def _folder_of(self, parts: Parts, *, make: bool = False) -> Iterator[int]:
        """A handle of the folder that holds the last name. Raises OSError, OutsideError."""
        if not parts:
            raise IsADirectoryError(21, "this is the work folder itself", str(self.root))
        handle = os.open(self.root, _FOLDER)
        try:
            for name in parts[:-1]:
                if make:
                    _make_missing(name, handle)
                below = _open_below(name, handle, parts)
                os.close(handle)
                handle = below
            yield handle
        finally:
            os.close(handle)


def _open_below(name: str, folder: int, parts: Parts) -> int:
    if name in ("", ".", "..") or "/" in name:
        raise OutsideError(f"{'/'.join(parts)}: {name!r} is no name of a folder")
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except NotADirectoryError:
        raise OutsideError(f"{'/'.join(parts)}: {name} is a link or a file, not a folder") from None


def _make_missing(name: str, folder: int) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=folder)
        made = os.open(name, _FOLDER, dir_fd=folder)
        try:
            _give_to_owner_of(folder, made)
        finally:
            os.close(made)


def _give_to_owner_of(folder: int, handle: int) -> None:
    """Commands in the sandbox run as the folder's owner and must be able to use the file."""
    owner = os.fstat(folder)
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.fchown(handle, owner.st_uid, owner.st_gid)
