"""What does the supervisor know of the thread whose call it answers? Its memory and its files."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from expertmesh.agent.sandbox.landlock.notifications import Call, Listener

HERE = -100
"""AT_FDCWD: relative to the current folder."""


class Caller:
    """One waiting call. All methods raise OSError as the call itself would."""

    def __init__(self, listener: Listener, call: Call):
        self.listener, self.call = listener, call
        self._task = Path(f"/proc/{call.task}")

    def text(self, address: int) -> bytes:
        """A path that it gave."""
        return self.listener.read_path(self.call, address)

    def memory(self, address: int, size_bytes: int) -> bytes:
        return self.listener.read_memory(self.call, address, size_bytes)

    def umask(self) -> int:
        found = re.search(r"^Umask:\s*([0-7]+)$", (self._task / "status").read_text(), re.MULTILINE)
        return int(found[1], 8) if found else 0o077

    @contextmanager
    def pinned(self, folder: int, path: bytes, flags: int = 0) -> Iterator[tuple[int, Path]]:
        """What a path names, held open without being read, and where it really is.

        `flags` are open's, such as O_NOFOLLOW. An empty path is the open file `folder` itself.
        """
        if path.startswith(b"/"):
            file = os.open(path, os.O_PATH | os.O_CLOEXEC | flags)
        else:
            place = self._task / ("cwd" if folder == HERE else f"fd/{folder}")
            file = os.open(place, os.O_PATH | os.O_CLOEXEC)
            if path:
                try:
                    inner = os.open(path, os.O_PATH | os.O_CLOEXEC | flags, dir_fd=file)
                finally:
                    os.close(file)
                file = inner
        try:
            if not self.listener.is_waiting(self.call):  # its number may be another's by now
                raise ProcessLookupError(self.call.task)
            yield file, Path(os.readlink(f"/proc/self/fd/{file}"))
        finally:
            os.close(file)

    @contextmanager
    def entry(self, folder: int, path: bytes) -> Iterator[tuple[int, str, Path]]:
        """The folder that a path's last part is or would be in, held open; that part; its place.

        Raises FileExistsError if the last part is not a name.
        """
        above, _, name = path.rstrip(b"/").rpartition(b"/")
        if name in (b"", b".", b".."):
            raise FileExistsError(path)
        if path.startswith(b"/") and not above:
            above = b"/"
        with self.pinned(folder, above or b".", os.O_DIRECTORY) as (file, place):
            yield file, os.fsdecode(name), place / os.fsdecode(name)
