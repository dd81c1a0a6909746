"""Which container engine do the tests use? One that answers, else one started here."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROJECT_PREFIX = "expertmesh-test-"
_SETPRIV = shutil.which("setpriv")
_DIE_WITH_US = (_SETPRIV, "--pdeathsig", "TERM") if _SETPRIV else ()
START_S = 60.0
STOP_S = 60.0


def docker(*arguments: str, timeout_s: float = 60.0) -> str:
    """Run one docker command; its standard output. Fails the test with what it printed."""
    done = subprocess.run(
        ["docker", *arguments],
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}:\n{done.stdout}{done.stderr}"[
        -4000:
    ]
    return done.stdout.strip()


def answers() -> bool:
    done = subprocess.run(
        ["docker", "version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30
    )
    return done.returncode == 0


def remove_leftovers() -> None:
    """Remove containers, networks (bridges of this machine) and volumes of interrupted runs."""
    label = "label=com.docker.compose.project"
    project = '{{.Label "com.docker.compose.project"}}'
    for kind, listing, removal in (
        ("container", ("ps", "--all"), ("rm", "--force", "--volumes")),
        ("network", ("network", "ls"), ("network", "rm")),
        ("volume", ("volume", "ls"), ("volume", "rm", "--force")),
    ):
        name = "{{.Name}}" if kind == "volume" else "{{.ID}}"
        shown = docker(*listing, "--filter", label, "--format", f"{project} {name}")
        for line in shown.splitlines():
            owner, _, identity = line.partition(" ")
            if owner.startswith(PROJECT_PREFIX):
                docker(*removal, identity)


@contextmanager
def engine(folder: Path) -> Iterator[None]:
    """Set DOCKER_HOST to a working engine; one started here keeps its images in `folder`."""
    for tool in ("docker", "docker-compose"):
        if shutil.which(tool) is None:
            pytest.fail(f"{tool} is needed (Debian: apt-get install docker.io docker-compose)")
    if answers():
        remove_leftovers()
        yield
        return
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        pytest.fail("no engine answers; starting one needs dockerd (Debian: docker.io) and root")
    socket = f"unix://{folder}/docker.sock"
    with (folder / "dockerd.log").open("w") as log:
        process = subprocess.Popen(
            _dockerd(folder, socket),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the tests; they end it when they are done
        )
    former = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = socket
    try:
        _wait_for_answer(process, folder / "dockerd.log")
        remove_leftovers()
        yield
        remove_leftovers()
    finally:
        if former is None:
            del os.environ["DOCKER_HOST"]
        else:
            os.environ["DOCKER_HOST"] = former
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)
        # Stays mounted when something used the machine's network, and blocks the folder's removal.
        subprocess.run(
            ["umount", str(folder / "exec/netns/default")],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
        )


def _dockerd(folder: Path, socket: str) -> list[str]:
    """Start an engine that leaves the machine's network as it is: no rules, no forwarding."""
    return [
        *_DIE_WITH_US,
        *("dockerd", "--host", socket, "--data-root", str(folder / "engine")),
        *("--exec-root", str(folder / "exec"), "--pidfile", str(folder / "dockerd.pid")),
        *("--bridge=none", "--iptables=false", "--ip-masq=false", "--ip-forward=false"),
    ]


def _wait_for_answer(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"dockerd does not answer; the end of its log:\n{log.read_text()[-3000:]}")
        time.sleep(0.5)
