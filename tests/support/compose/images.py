"""How are the images made without a registry? From Debian's packages, pip and deploy/Dockerfile."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest

from tests.support.compose.engine import docker
from tests.support.places import ROOT

BASE = "expertmesh-test-base"
BUILD = "expertmesh-test-build"
PROMETHEUS = "expertmesh-test-prometheus"
SERVICE = "expertmesh-test"
LONG_S = 900.0


def make_images(folder: Path) -> None:
    """All images, made in `folder`; what is there already is used again."""
    if not docker("images", "--quiet", BASE):
        _import_base(folder)
    context = folder / "context"
    _fetch_wheels(context / "wheels", docker("run", "--rm", "--network=none", BASE, *_VERSION))
    recipe = str(Path(__file__).with_name("images.Dockerfile"))
    for target, tag in (("build", BUILD), ("prometheus", PROMETHEUS)):
        docker(
            *("build", "--network=host", "--build-arg", f"BASE={BASE}", "--target", target),
            *("--tag", tag, "--file", recipe, str(context)),
            timeout_s=LONG_S,
        )
    # Everything it needs is in the build image: no network at all.
    docker(
        *("build", "--network=none", "--tag", SERVICE, "--file", str(ROOT / "deploy/Dockerfile")),
        *("--build-arg", f"BUILD_IMAGE={BUILD}", "--build-arg", f"BASE_IMAGE={BASE}", str(ROOT)),
        timeout_s=LONG_S,
    )


_VERSION = ("python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])")


def _import_base(folder: Path) -> None:
    """A small Debian with Python, from the mirror that this machine's apt uses."""
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        pytest.fail("making the base image needs debootstrap (Debian: debootstrap) and root")
    index = _output(
        "apt-get",
        "indextargets",
        "--format",
        "$(CODENAME) $(SITE)",
        "Created-By: Packages",
        "Component: main",
    )
    suite, mirror = index.splitlines()[0].split()
    with tempfile.TemporaryDirectory(dir=folder) as root:
        _output(
            "debootstrap",
            "--variant=minbase",
            "--include=python3,python3-venv,ca-certificates",
            suite,
            root,
            mirror,
            folder=folder,
        )
        _output("sh", "-c", f"tar --directory {root} --create . | docker import - {BASE}")


def _fetch_wheels(wheels: Path, python: str) -> None:
    """Download what the package and its build need for the image's Python."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    key = hashlib.sha256("\n".join((python, *needed)).encode()).hexdigest()
    stamp = wheels.parent / "needed"
    if stamp.exists() and stamp.read_text() == key:
        return
    shutil.rmtree(wheels, ignore_errors=True)
    _output(
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--only-binary=:all:",
        "--python-version",
        python,
        "--dest",
        str(wheels),
        *needed,
    )
    stamp.write_text(key)


def _output(*command: str, folder: Path | None = None) -> str:
    """Run it in `folder`, so that what it leaves (wget writes logs) is not left in the checkout."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONG_S,
        cwd=folder,
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"[-4000:]
    return done.stdout
