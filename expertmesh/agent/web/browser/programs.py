"""Which programs start a browser here, and what of the system does it see in bubblewrap?"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from expertmesh.agent.sandbox.folders.identity import NOBODY, Identity, as_user

PROFILE = "/home/profile"
"""Inside bubblewrap."""
_PROBE_S = 10.0
_TMP_BYTES = 256 << 20
_ALONE = ("--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv")
_INSIDE = ("--proc", "/proc", "--dev", "/dev", "--size", str(_TMP_BYTES), "--tmpfs", "/tmp")
_SYSTEM_PATHS = (
    *("/etc/fonts", "/etc/ssl", "/etc/ca-certificates", "/etc/pki"),
    *("/etc/ld.so.cache", "/etc/alternatives"),
    *("/etc/chromium", "/etc/chromium.d", "/etc/opt/chrome"),
)
_NAMES = ("chromium", "google-chrome-stable", "google-chrome")


def find_browser(work_dir: Path | None = None) -> str | None:
    """The path of chromium or Chrome; not one in the work folder, where a model may write."""
    found = (_program(name, work_dir) for name in _NAMES)
    return next((path for path in found if path), None)


def find_bubblewrap(work_dir: Path | None = None) -> str | None:
    """The path of bwrap, if it can do here what a browser needs."""
    path = _program("bwrap", work_dir)
    if path is None:
        return None
    try:
        done = subprocess.run(
            as_user(other_user(), [path, *_ALONE, "--ro-bind", "/", "/", *_INSIDE, "true"]),
            capture_output=True,
            timeout=_PROBE_S,
            env=environment("/"),
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return path if done.returncode == 0 else None


def bubblewrap_argv(bubblewrap: str, executable: str) -> list[str]:
    """What stands before a command that becomes this browser: no network but loopback, processes of
    its own, and of the files programs, fonts and certificates."""
    argv = [bubblewrap, *_ALONE]
    for name, value in environment("/home").items():
        argv += ["--setenv", name, value]
    argv += ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "lib", "lib64", "sbin"):
        where = Path("/", name)
        if where.is_symlink():
            argv += ["--symlink", os.readlink(where), str(where)]
        elif where.is_dir():
            argv += ["--ro-bind", str(where), str(where)]
    argv += [*_INSIDE, "--size", str(_TMP_BYTES), "--tmpfs", "/home"]
    folders = (str(Path(executable).resolve().parent), python()[1])
    for path in (*_SYSTEM_PATHS, *folders):
        if not Path(path).is_relative_to("/usr"):
            argv += ["--ro-bind-try", path, path]
    return argv


def python() -> tuple[str, str]:
    """(program, the folder of its installation): this one, or as root one that others may run."""
    if os.geteuid() == 0:
        return shutil.which("python3", path="/usr/local/bin:/usr/bin") or "python3", "/usr"
    return os.path.realpath(sys.executable), sys.base_prefix


def other_user() -> Identity | None:
    """Whose process the browser is if we are root."""
    return NOBODY if os.geteuid() == 0 else None


def environment(home: str) -> dict[str, str]:
    """Nothing of the agent's own, which holds keys."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": home, "LANG": "C.UTF-8"}


def _program(name: str, work_dir: Path | None) -> str | None:
    path = shutil.which(name)
    if path and work_dir and Path(path).resolve().is_relative_to(work_dir.resolve()):
        return None
    return path
