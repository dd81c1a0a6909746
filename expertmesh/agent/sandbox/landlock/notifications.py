"""How are system calls handed to a supervisor, and answered? Layouts: seccomp.h."""

import errno
import fcntl
import os
import struct
from typing import NamedTuple

_CALL = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")
_GIVEN_FILE = struct.Struct("=QIIII")
RECEIVE, ANSWER, IS_VALID, GIVE_FILE = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103
LET_IT_PASS, AND_ANSWER = 1, 2
PATH_BYTES, PAGE_BYTES = 4096, 4096


class Call(NamedTuple):
    """A system call that waits for its answer."""

    id: int
    task: int
    """The thread that made it."""
    number: int
    arguments: tuple[int, ...]


class Listener:
    """The supervisor's end of a seccomp filter."""

    def __init__(self, file: int):
        self._file = file

    def next_call(self) -> Call | None:
        """Wait for one; None if its caller is gone again."""
        buffer = bytearray(_CALL.size)
        try:
            fcntl.ioctl(self._file, RECEIVE, buffer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None
            raise
        id_, task, _, number, _, _, *arguments = _CALL.unpack(buffer)
        return Call(id_, task, number, tuple(arguments))

    def is_waiting(self, call: Call) -> bool:
        """Whether its caller still is the one that made it."""
        try:
            fcntl.ioctl(self._file, IS_VALID, struct.pack("=Q", call.id))
        except OSError:
            return False
        return True

    def let_pass(self, call: Call) -> None:
        """The kernel goes on with it, and judges it by the caller's rights."""
        self._answer(_ANSWER.pack(call.id, 0, 0, LET_IT_PASS))

    def succeed(self, call: Call) -> None:
        """It returns 0."""
        self._answer(_ANSWER.pack(call.id, 0, 0, 0))

    def fail(self, call: Call, error: int) -> None:
        """It fails with an errno."""
        self._answer(_ANSWER.pack(call.id, 0, -error, 0))

    def give_file(self, call: Call, file: int, flags: int) -> None:
        """It returns a copy of this open file."""
        layout = _GIVEN_FILE.pack(call.id, AND_ANSWER, file, 0, flags & os.O_CLOEXEC)
        try:
            fcntl.ioctl(self._file, GIVE_FILE, layout)
        except OSError as error:
            if error.errno == errno.EMFILE:
                self.fail(call, errno.EMFILE)
            elif error.errno != errno.ENOENT:
                raise

    def _answer(self, answer: bytes) -> None:
        try:
            fcntl.ioctl(self._file, ANSWER, answer)
        except OSError as error:
            if error.errno != errno.ENOENT:  # nobody waits any more
                raise

    def read_memory(self, call: Call, address: int, size_bytes: int) -> bytes:
        """Up to that much of the caller's memory. Raises OSError."""
        with open(f"/proc/{call.task}/mem", "rb", buffering=0) as memory:
            if not self.is_waiting(call):  # the number may be another's by now
                raise OSError(errno.ESRCH, "gone")
            return os.pread(memory.fileno(), size_bytes, address)

    def read_path(self, call: Call, address: int) -> bytes:
        """A text that ends with a null byte. Raises OSError."""
        found = b""
        while b"\0" not in found:
            if len(found) >= PATH_BYTES:
                raise OSError(errno.ENAMETOOLONG, "path")
            at = address + len(found)
            piece = self.read_memory(call, at, PAGE_BYTES - at % PAGE_BYTES)
            if not piece:
                raise OSError(errno.EFAULT, "path")
            found += piece
        path = found.partition(b"\0")[0]
        if len(path) >= PATH_BYTES:
            raise OSError(errno.ENAMETOOLONG, "path")
        return path
