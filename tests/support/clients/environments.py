"""Where is each client installed? In an environment of its own, made by `make test-clients`."""

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.places import ROOT

FOLDER = Path(os.environ.get("EXPERTMESH_CLIENTS", ROOT / ".clients"))
INSTALL_S = 900


def node(package: str, version: str, command: str, *beside: str) -> Path:
    """The command of a package from the npm registry; `beside` it are others, as NAME@VERSION."""
    folder = FOLDER / "-".join([command, version, *beside])
    found = folder / "node_modules" / ".bin" / command
    with _one_at_a_time(folder):
        if not found.exists():
            _npm_install(folder, f"{package}@{version}", *beside, "--foreground-scripts")
            installer = folder / "node_modules" / package / "install.cjs"
            if installer.exists():  # npm may refuse to run it by itself
                _run(["node", str(installer)], folder)
    return found


def node_package(package: str) -> Path:
    """A folder whose node_modules have a package, which is NAME@VERSION."""
    folder = FOLDER / package.replace("/", "-")
    with _one_at_a_time(folder):
        if not (folder / "package-lock.json").exists():
            _npm_install(folder, package)
    return folder


def python(
    name: str, *requirements: str, alone: Sequence[str] = (), shares_ours: bool = False
) -> Path:
    """The interpreter of an environment with these packages.

    Args:
        alone: packages that are installed without what they require.
        shares_ours: what this environment has can be imported there too.
    """
    folder = FOLDER / name
    interpreter = folder / "bin" / "python"
    stamp = folder / "installed"
    wanted = "\n".join([*requirements, *alone])
    with _one_at_a_time(folder):
        if not stamp.exists() or stamp.read_text() != wanted:
            _run([sys.executable, "-m", "venv", "--clear", str(folder)], FOLDER)
            if shares_ours:
                (paths,) = folder.glob("lib/python*/site-packages")
                (paths / "ours.pth").write_text(sysconfig.get_path("purelib"))
            install = [str(interpreter), "-m", "pip", "install", "--quiet"]
            _run([*install, *requirements], FOLDER)
            if alone:
                _run([*install, "--no-deps", *alone], FOLDER)
            stamp.write_text(wanted)
    return interpreter


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Of several runs that want the same client, one installs it and the others find it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _npm_install(folder: Path, *wanted: str) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is needed for this client")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text('{"private": true}')
    _run([npm, "install", *wanted, "--no-audit", "--no-fund"], folder)


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
