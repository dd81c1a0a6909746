"""Who answers the calls that a command may not make by itself?

Landlock cannot allow a folder without allowing all that is in it, and knows nothing of modes and
times. So a command may change nothing in the work folder by itself: such calls come here, and are
made in its stead where they may be. All others go on to the kernel, where Landlock judges them;
what Landlock does not judge is refused.
"""

import ctypes
import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from expertmesh.agent.sandbox.kernel.syscalls import numbers
from expertmesh.agent.sandbox.landlock.caller import HERE, Caller
from expertmesh.agent.sandbox.landlock.file_changes import FileChanges, NotOursError
from expertmesh.agent.sandbox.landlock.notifications import Call, Listener

REWRITE = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
REMOVE_FOLDER = 0x200
NOT_LANDLOCKS = ("chmod", "fchmod", "fchmodat", "fchmodat2", "utimensat")

Handler = Callable[[Caller, tuple[int, ...]], int | None]
"""Makes a call with these arguments; returns the file that it opened, if it opens one."""


class Supervisor:
    """Answers the calls of one command's processes, one after the other."""

    def __init__(
        self, listener: Listener, roots: Sequence[Path], protected: Sequence[Path], file_bytes: int
    ):
        self._listener = listener
        number_of = numbers()
        handlers = _handlers(FileChanges(roots, protected, file_bytes))
        self._handlers = {
            number_of[name]: one for name, one in handlers.items() if name in number_of
        }
        self._refused = {number_of[name] for name in NOT_LANDLOCKS if name in number_of}

    def serve(self) -> None:
        """Answer calls until the process ends."""
        while True:
            call = self._listener.next_call()
            if call is not None:
                self._answer(call)

    def _answer(self, call: Call) -> None:
        try:
            file = self._handlers[call.number](Caller(self._listener, call), call.arguments)
        except NotOursError:
            if call.number in self._refused:
                self._listener.fail(call, errno.EPERM)
            else:
                self._listener.let_pass(call)
        except OSError as error:
            self._listener.fail(call, error.errno or errno.EEXIST)
        except Exception:  # of whatever a command has thought out: it may not do it
            self._listener.fail(call, errno.EINVAL)
        else:
            if file is None:
                self._listener.succeed(call)
                return
            try:
                flags = call.arguments[2 if call.number == numbers()["openat"] else 1]
                self._listener.give_file(call, file, flags)
            finally:
                os.close(file)


def _file(argument: int) -> int:
    """A file's number, or HERE, as the kernel reads it."""
    return ctypes.c_int32(argument & 0xFFFFFFFF).value


def _handlers(make: FileChanges) -> dict[str, Handler]:
    """What each call is, with its arguments in its order."""

    def path(caller: Caller, address: int) -> bytes:
        found = caller.text(address)
        if not found:
            raise FileNotFoundError(errno.ENOENT, "an empty path")
        return found

    def open_(c: Caller, folder: int, name: int, flags: int, mode: int) -> int:
        return make.open(c, folder, path(c, name), flags & 0xFFFFFFFF, mode)

    def move(c: Caller, old: tuple[int, int], new: tuple[int, int], flags: int) -> None:
        make.move(c, (old[0], path(c, old[1])), (new[0], path(c, new[1])), flags)

    def link(c: Caller, old: tuple[int, int], new: tuple[int, int], flags: int) -> None:
        make.link(c, (old[0], path(c, old[1])), (new[0], path(c, new[1])), flags)

    def times(c: Caller, a: tuple[int, ...]) -> None:
        """Without a path, those of the open file."""
        name = path(c, a[1]) if a[1] else b""
        make.set_times(c, _file(a[0]), name, a[2], a[3])

    return {
        "open": lambda c, a: open_(c, HERE, a[0], a[1], a[2]),
        "openat": lambda c, a: open_(c, _file(a[0]), a[1], a[2], a[3]),
        "creat": lambda c, a: open_(c, HERE, a[0], REWRITE, a[1]),
        "mkdir": lambda c, a: make.make_folder(c, HERE, path(c, a[0]), a[1]),
        "mkdirat": lambda c, a: make.make_folder(c, _file(a[0]), path(c, a[1]), a[2]),
        "rmdir": lambda c, a: make.remove(c, HERE, path(c, a[0]), REMOVE_FOLDER),
        "unlink": lambda c, a: make.remove(c, HERE, path(c, a[0]), 0),
        "unlinkat": lambda c, a: make.remove(c, _file(a[0]), path(c, a[1]), a[2]),
        "rename": lambda c, a: move(c, (HERE, a[0]), (HERE, a[1]), 0),
        "renameat": lambda c, a: move(c, (_file(a[0]), a[1]), (_file(a[2]), a[3]), 0),
        "renameat2": lambda c, a: move(c, (_file(a[0]), a[1]), (_file(a[2]), a[3]), a[4]),
        "link": lambda c, a: link(c, (HERE, a[0]), (HERE, a[1]), 0),
        "linkat": lambda c, a: link(c, (_file(a[0]), a[1]), (_file(a[2]), a[3]), a[4]),
        "symlink": lambda c, a: make.symlink(c, path(c, a[0]), HERE, path(c, a[1])),
        "symlinkat": lambda c, a: make.symlink(c, path(c, a[0]), _file(a[1]), path(c, a[2])),
        "truncate": lambda c, a: make.truncate(c, path(c, a[0]), a[1]),
        "chmod": lambda c, a: make.set_mode(c, HERE, path(c, a[0]), a[1], 0),
        "fchmodat": lambda c, a: make.set_mode(c, _file(a[0]), path(c, a[1]), a[2], 0),
        "fchmodat2": lambda c, a: make.set_mode(c, _file(a[0]), path(c, a[1]), a[2], a[3]),
        "fchmod": lambda c, a: make.set_mode(c, _file(a[0]), b"", a[1], 0),
        "utimensat": times,
    }
