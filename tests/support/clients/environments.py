"""Where is each client installed? In an environment of its own, made by `make test-clients`."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from tests.support.places import ROOT

FOLDER = Path(os.environ.get("EXPERTMESH_CLIENTS", ROOT / ".clients"))
INSTALL_S = 900


def node(package: str, version: str, command: str) -> Path:
    """The command of a package from the npm registry."""
    folder = FOLDER / f"{command}-{version}"
    found = folder / "node_modules" / ".bin" / command
    if not found.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise FileNotFoundError("npm is needed for this client")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}')
        wanted = [f"{package}@{version}", "--no-audit", "--no-fund", "--foreground-scripts"]
        _run([npm, "install", *wanted], folder)
        installer = folder / "node_modules" / package / "install.cjs"
        if installer.exists():  # npm may refuse to run it by itself
            _run(["node", str(installer)], folder)
    return found


def node_package(package: str) -> Path:
    """A folder whose node_modules have a package, which is NAME@VERSION."""
    folder = FOLDER / package.replace("/", "-")
    if not (folder / "package-lock.json").exists():
        npm = shutil.which("npm")
        if npm is None:
            raise FileNotFoundError("npm is needed for this client")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}')
        _run([npm, "install", package, "--no-audit", "--no-fund"], folder)
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
    if not stamp.exists() or stamp.read_text() != wanted:
        _run([sys.executable, "-m", "venv", "--clear", str(folder)], FOLDER.parent)
        if shares_ours:
            (paths,) = folder.glob("lib/python*/site-packages")
            (paths / "ours.pth").write_text(sysconfig.get_path("purelib"))
        install = [str(interpreter), "-m", "pip", "install", "--quiet"]
        _run([*install, *requirements], FOLDER.parent)
        if alone:
            _run([*install, "--no-deps", *alone], FOLDER.parent)
        stamp.write_text(wanted)
    return interpreter


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
