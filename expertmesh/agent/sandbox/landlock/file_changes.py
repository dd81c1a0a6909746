"""How are changes of files made in a command's stead, without being led outside?

Each is made on an open file or folder whose real path has been looked at, so that nothing can be
swapped between the look and the change.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from expertmesh.agent.sandbox.folders.containment import is_writable
from expertmesh.agent.sandbox.kernel.syscalls import numbers
from expertmesh.agent.sandbox.landlock.caller import HERE, Caller

NO_FOLLOW, REMOVE_FOLDER = 0x100, 0x200
UNNAMED = 0o20000000
"""O_TMPFILE without its O_DIRECTORY."""
TIMES_BYTES = 32


class NotOursError(Exception):
    """The call is not about what may be changed."""


class FileChanges:
    """Changes below `roots` of what is not protected; all methods raise OSError, NotOursError."""

    def __init__(self, roots: Sequence[Path], protected: Sequence[Path], file_bytes: int):
        self._roots, self._protected = tuple(roots), tuple(protected)
        self._file_bytes = file_bytes
        self._libc = ctypes.CDLL(None, use_errno=True)

    def _must_be_ours(self, *places: Path) -> None:
        if not all(is_writable(place, self._roots, self._protected) for place in places):
            raise NotOursError

    def open(self, caller: Caller, folder: int, path: bytes, flags: int, mode: int) -> int:
        """Open it for a change, or create it, and return the file."""
        if flags & os.O_PATH:
            raise NotOursError
        if flags & UNNAMED:
            raise OSError(errno.EOPNOTSUPP, "files without a name")
        is_new = bool(flags & os.O_CREAT and flags & os.O_EXCL)
        try:
            no_follow = os.O_NOFOLLOW if is_new or flags & os.O_NOFOLLOW else 0
            with caller.pinned(folder, path, no_follow) as (file, place):
                self._must_be_ours(place)
                kind = os.stat(file).st_mode
                if is_new:
                    raise FileExistsError(errno.EEXIST, "exists")
                if stat.S_ISLNK(kind):
                    raise OSError(errno.ELOOP, "a symbolic link")
                if stat.S_ISDIR(kind):
                    raise IsADirectoryError(errno.EISDIR, "a folder")
                if not stat.S_ISREG(kind):
                    raise NotOursError
                again = flags & ~(os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
                return os.open(f"/proc/self/fd/{file}", again | os.O_CLOEXEC)
        except FileNotFoundError:
            if not flags & os.O_CREAT or path.endswith(b"/"):
                raise
        with caller.entry(folder, path) as (parent, name, place):
            self._must_be_ours(place)
            create = (flags & ~os.O_TRUNC) | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(name, create, mode & 0o7777 & ~caller.umask(), dir_fd=parent)

    def make_folder(self, caller: Caller, folder: int, path: bytes, mode: int) -> None:
        with caller.entry(folder, path) as (parent, name, place):
            self._must_be_ours(place)
            os.mkdir(name, mode & 0o7777 & ~caller.umask(), dir_fd=parent)

    def remove(self, caller: Caller, folder: int, path: bytes, flags: int) -> None:
        with caller.entry(folder, path) as (parent, name, place):
            self._must_be_ours(place)
            if flags & REMOVE_FOLDER:
                os.rmdir(name, dir_fd=parent)
            else:
                os.unlink(name, dir_fd=parent)

    def move(
        self, caller: Caller, old: tuple[int, bytes], new: tuple[int, bytes], flags: int
    ) -> None:
        with caller.entry(*old) as (from_, name, place), caller.entry(*new) as (to, then, goal):
            self._must_be_ours(place, goal)
            call = numbers()["renameat2"]  # not in every libc
            names = os.fsencode(name), os.fsencode(then)
            moved = self._libc.syscall(call, from_, names[0], to, names[1], flags)
            if moved != 0:
                raise OSError(ctypes.get_errno(), "rename")

    def link(
        self, caller: Caller, old: tuple[int, bytes], new: tuple[int, bytes], flags: int
    ) -> None:
        if flags:
            raise NotOursError
        with caller.entry(*old) as (from_, name, place), caller.entry(*new) as (to, then, goal):
            self._must_be_ours(place, goal)
            os.link(name, then, src_dir_fd=from_, dst_dir_fd=to, follow_symlinks=False)

    def symlink(self, caller: Caller, target: bytes, folder: int, path: bytes) -> None:
        """It may lead anywhere: who follows it needs the right to what is there."""
        with caller.entry(folder, path) as (parent, name, place):
            self._must_be_ours(place)
            os.symlink(target, os.fsencode(name), dir_fd=parent)

    def truncate(self, caller: Caller, path: bytes, size_bytes: int) -> None:
        with caller.pinned(HERE, path) as (file, place):
            self._must_be_ours(place)
            found = os.stat(file)
            if not stat.S_ISREG(found.st_mode):
                raise NotOursError
            if size_bytes > max(self._file_bytes, found.st_size):
                raise OSError(errno.EFBIG, "too large")
            os.truncate(f"/proc/self/fd/{file}", size_bytes)

    def set_mode(self, caller: Caller, folder: int, path: bytes, mode: int, flags: int) -> None:
        no_follow = os.O_NOFOLLOW if flags & NO_FOLLOW else 0
        with caller.pinned(folder, path, no_follow) as (file, place):
            self._must_be_ours(place)
            os.chmod(f"/proc/self/fd/{file}", mode & 0o7777)

    def set_times(self, caller: Caller, folder: int, path: bytes, times: int, flags: int) -> None:
        no_follow = os.O_NOFOLLOW if flags & NO_FOLLOW else 0
        both = caller.memory(times, TIMES_BYTES) if times else None
        if both is not None and len(both) != TIMES_BYTES:
            raise OSError(errno.EFAULT, "times")
        with caller.pinned(folder, path, no_follow) as (file, place):
            self._must_be_ours(place)
            name = os.fsencode(f"/proc/self/fd/{file}")
            if self._libc.utimensat(HERE, name, both, 0) != 0:
                raise OSError(ctypes.get_errno(), "times")
