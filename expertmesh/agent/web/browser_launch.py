"""Start a browser so that its only way out is a socket of ours: by bubblewrap, or by its flags.

With bubblewrap it has a network without any interface but loopback, its own processes, and no files
but programs and fonts. Without, chromium's flags keep it to the proxy. Never as root: then it is
started as the user nobody.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from expertmesh.agent.web.chromium_flags import PREFERENCES, chromium_argv
from expertmesh.agent.web.contained_browser import PORT_WORD

NOBODY = 65534
_INNER = Path(__file__).with_name("contained_browser.py")
_START_S = 10.0
_TMP_BYTES = 256 << 20
_SYSTEM_PATHS = (
    *("/etc/fonts", "/etc/ssl", "/etc/ca-certificates", "/etc/pki"),
    *("/etc/ld.so.cache", "/etc/alternatives"),
    *("/etc/chromium", "/etc/chromium.d", "/etc/opt/chrome"),
)
_ALONE = ("--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv")
_INSIDE = ("--proc", "/proc", "--dev", "/dev", "--size", str(_TMP_BYTES), "--tmpfs", "/tmp")
_NAMES = ("chromium", "google-chrome-stable", "google-chrome")


class LaunchError(Exception):
    """A browser that does not start; the text says what is missing."""


@dataclass(frozen=True)
class Launched:
    """A running browser and the socket on which it looks for its proxy."""

    process: asyncio.subprocess.Process
    listener: socket.socket
    profile: str | None
    """The HOME of all its processes; None if they die with the first."""


def find_browser(work_dir: Path) -> str | None:
    """The path of chromium or Chrome; not one in the work folder, where a model may write."""
    found = (_program(name, work_dir) for name in _NAMES)
    return next((path for path in found if path), None)


def find_bubblewrap(work_dir: Path) -> str | None:
    """The path of bwrap, if it can do here what a browser needs."""
    path = _program("bwrap", work_dir)
    if path is None:
        return None
    probe = [path, *_ALONE, "--ro-bind", "/", "/", *_INSIDE, "true"]
    user = _other_user()
    try:
        done = subprocess.run(
            probe,
            capture_output=True,
            timeout=_START_S,
            env=_environment("/"),
            cwd="/",
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return path if done.returncode == 0 else None


@asynccontextmanager
async def launched(
    executable: str, bubblewrap: str | None, script_ms: int, url: str
) -> AsyncIterator[Launched]:
    """Raises LaunchError. The process is ended by the caller."""
    if bubblewrap:
        browser = await _contained(executable, bubblewrap, script_ms, url)
        with browser.listener:
            yield browser
        return
    with _profile() as profile:
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            port = listener.getsockname()[1]
            argv = chromium_argv(executable, profile, port, script_ms, url)
            yield Launched(await _start(argv, profile), listener, profile)


async def _contained(executable: str, bubblewrap: str, script_ms: int, url: str) -> Launched:
    ours, inner = socket.socketpair()
    python, python_folder = _python()
    browser = chromium_argv(executable, "/home/profile", PORT_WORD, script_ms, url)
    argv = [
        *_bubblewrap_argv(bubblewrap, [_folder_of(executable), python_folder]),
        *(python, "-I", "-S", "-c", _INNER.read_text(encoding="utf-8")),
        *(str(inner.fileno()), "/home/profile", PREFERENCES, *browser),
    ]
    with ours:
        with inner:
            process = await _start(argv, "/", pass_fds=[inner.fileno()])
        try:
            listener = await _received(ours)
        except asyncio.CancelledError:
            await _ended(process)
            raise
    if listener is None:
        errors = await _ended(process)
        raise LaunchError(f"the browser did not start: {errors.decode(errors='replace')[-500:]}")
    return Launched(process, listener, None)


async def _ended(process: asyncio.subprocess.Process) -> bytes:
    """What it wrote to stderr until it was killed."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    return (await process.communicate())[1]


async def _received(channel: socket.socket) -> socket.socket | None:
    """The listening socket that comes through a Unix socket; None if that ends without one."""
    channel.setblocking(False)
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(channel, readable.set)
    try:
        async with asyncio.timeout(_START_S):
            await readable.wait()
        _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    except OSError:  # a time limit, too
        return None
    finally:
        loop.remove_reader(channel)
    return socket.socket(fileno=descriptors[0]) if descriptors else None


def _bubblewrap_argv(bubblewrap: str, folders: Sequence[str]) -> list[str]:
    """`folders` are those of the programs, in case they are not below /usr."""
    argv = [bubblewrap, *_ALONE]
    for name, value in _environment("/home").items():
        argv += ["--setenv", name, value]
    argv += ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "lib", "lib64", "sbin"):
        where = Path("/", name)
        if where.is_symlink():
            argv += ["--symlink", os.readlink(where), str(where)]
        elif where.is_dir():
            argv += ["--ro-bind", str(where), str(where)]
    argv += [*_INSIDE, "--size", str(_TMP_BYTES), "--tmpfs", "/home"]
    for path in (*_SYSTEM_PATHS, *folders):
        if not Path(path).is_relative_to("/usr"):
            argv += ["--ro-bind-try", path, path]
    return argv


def _program(name: str, work_dir: Path) -> str | None:
    path = shutil.which(name)
    if path is None or Path(path).resolve().is_relative_to(work_dir.resolve()):
        return None
    return path


def _folder_of(program: str) -> str:
    return str(Path(program).resolve().parent)


def _python() -> tuple[str, str]:
    """(program, the folder of its installation): this one, or as root one that others may run."""
    if os.geteuid() == 0:
        return shutil.which("python3", path="/usr/local/bin:/usr/bin") or "python3", "/usr"
    return os.path.realpath(sys.executable), sys.base_prefix


@contextmanager
def _profile() -> Iterator[str]:
    """A folder of the browser's user, removed with all that is in it."""
    with tempfile.TemporaryDirectory(prefix="expertmesh-browser-") as folder:
        default = Path(folder, "Default")
        default.mkdir()
        Path(default, "Preferences").write_text(PREFERENCES, encoding="utf-8")
        if os.geteuid() == 0:
            for path in (Path(folder), default, default / "Preferences"):
                os.chown(path, NOBODY, NOBODY)
        yield folder


async def _start(
    argv: list[str], home: str, pass_fds: Sequence[int] = ()
) -> asyncio.subprocess.Process:
    user = _other_user()
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(home),
            cwd="/",
            pass_fds=pass_fds,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
    except OSError as error:
        raise LaunchError(f"the browser did not start: {error}") from None


def _other_user() -> int | None:
    """Whose process the browser is if we are root."""
    return NOBODY if os.geteuid() == 0 else None


def _environment(home: str) -> dict[str, str]:
    """Nothing of the agent's own, which holds keys."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": home, "LANG": "C.UTF-8"}
