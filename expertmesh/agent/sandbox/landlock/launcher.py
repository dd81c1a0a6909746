"""The process around a command under Landlock: starts it, supervises it, and ends all with it.

Three domains: the agent's, the launcher's inside it, the command's inside that. Who is inside
cannot signal who is outside, so that nothing ends the launcher; the launcher can signal those
inside and nobody else, so that "all processes" means exactly the command and what it started.
"""

import ctypes
import json
import os
import resource
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from expertmesh.agent.sandbox.folders.identity import Identity, become
from expertmesh.agent.sandbox.folders.removal import remove_tree
from expertmesh.agent.sandbox.kernel.seccomp import install, program
from expertmesh.agent.sandbox.kernel.syscalls import EVERYWHERE, WITHOUT_NAMESPACES
from expertmesh.agent.sandbox.kernel.tasks import tasks_of
from expertmesh.agent.sandbox.landlock.domain import confine, keep_signals_inside
from expertmesh.agent.sandbox.landlock.notifications import Listener
from expertmesh.agent.sandbox.landlock.supervisor import Supervisor

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


class Orders(NamedTuple):
    """What the launcher is told; paths are absolute."""

    parent: int
    """The process that started it, to end with."""
    status_file: int
    argv: list[str]
    folder: str
    readable: list[str]
    scratch: str
    roots: list[str]
    """Where the supervisor may change files."""
    protected: list[str]
    rlimits: dict[str, int]
    """`nproc` without the tasks that the user has."""
    identity: tuple[int, int] | None

    def to_json(self) -> bytes:
        return json.dumps(self._asdict()).encode()


def main(orders_file: int) -> NoReturn:
    """Carry out the orders; the exit code of the command goes to the status file."""
    with open(orders_file, "rb") as file:
        orders = Orders(**json.loads(file.read()))
    os.set_inheritable(orders.status_file, False)
    try:
        try:
            if orders.identity is not None:
                become(Identity(*orders.identity))
            code = _run(orders)
        finally:
            # In any case: nobody can tell whether the parent lives long enough to do it.
            with suppress(OSError):  # if it does, it will find what is left, and the fault
                remove_tree(Path(orders.scratch))
    except Exception as error:
        _tell(orders, error=f"{type(error).__name__}: {error}")
        os._exit(1)
    _tell(orders, **{"exit-code": code if code >= 0 else 128 - code})
    os._exit(0)


def _run(orders: Orders) -> int:
    """Start the command and wait for its end; its exit code, or the negative signal.

    SIGTERM ends it early. It waits until there is a command to end, and then comes to this thread,
    which it wakes, and not to the supervisor's.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    _die_with(orders.parent, signal.SIGTERM)
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # after a change of users, /proc/self is root's
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans come here
    others = tasks_of(os.getuid())
    _enter_domain()
    signal.signal(signal.SIGTERM, lambda *_: _end_all())
    ours, theirs = socket.socketpair()
    launcher, command = os.getpid(), os.fork()
    if command == 0:
        _become_command(orders, launcher, theirs, others)
    os.umask(0)  # the supervisor applies the caller's
    theirs.close()
    _, files, _, _ = socket.recv_fds(ours, 1, 1)
    if files:
        supervisor = Supervisor(
            Listener(files[0]),
            [Path(one) for one in orders.roots],
            [Path(one) for one in orders.protected],
            orders.rlimits["fsize"],
        )
        threading.Thread(target=supervisor.serve, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
    _end_all()
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return code


def _enter_domain() -> None:
    """Give up to signal who is outside, and make sure of it: `_end_all` relies on it."""
    if os.getuid() == 0:
        raise PermissionError("root must not run commands")
    read_end, write_end = os.pipe()
    outside = os.fork()
    if outside == 0:
        os.close(write_end)
        os.read(read_end, 1)
        os._exit(0)
    os.close(read_end)
    keep_signals_inside()
    try:
        os.kill(outside, 0)
    except PermissionError:
        pass
    else:
        raise OSError("this kernel's Landlock does not keep signals inside")
    finally:
        os.close(write_end)
        os.waitpid(outside, 0)


def _end_all() -> None:
    """Kill every process of the command: all that this one may signal, and no other."""
    try:
        os.kill(-1, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # none is left that is the command's


def _die_with(parent: int, number: int) -> None:
    """Get a signal when the parent ends, also if it has already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def _become_command(
    orders: Orders, launcher: int, to_launcher: socket.socket, others: int
) -> NoReturn:
    try:
        os.setsid()
        _die_with(launcher, signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):  # Python's own ways
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        Path("/proc/self/oom_score_adj").write_text("1000")  # rather this than the agent
        os.umask(0o022)
        os.chdir(orders.folder)
        for name, value in orders.rlimits.items():
            _lower(name, value + (others if name == "nproc" else 0))
        filter_program = program((*EVERYWHERE, *WITHOUT_NAMESPACES))
        confine(
            [Path(one) for one in orders.readable],
            [Path(orders.scratch)],
            [Path(one) for one in DEVICES],
        )
        listener = install(filter_program)
        socket.send_fds(to_launcher, [b"!"], [listener])
        _make_sure()
    except BaseException as error:
        _tell(orders, error=f"{type(error).__name__}: {error}")
        os._exit(1)
    try:
        os.execvpe(orders.argv[0], orders.argv, os.environ)
    except OSError as error:
        os.write(2, f"{orders.argv[0]}: {error.strerror}\n".encode())
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def _lower(name: str, value: int) -> None:
    kind = getattr(resource, f"RLIMIT_{name.upper()}")
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _make_sure() -> None:
    """Both mechanisms hold, or nothing is run."""
    for attempt in (socket.socket, lambda: os.open("/proc/self/environ", os.O_RDONLY)):
        try:
            attempt()
        except PermissionError:
            continue
        raise OSError("the kernel does not refuse what it was told to")


def _tell(orders: Orders, **status: Any) -> None:
    os.write(orders.status_file, json.dumps(status).encode() + b"\n")
