"""Real packet loss and dropped links: packet filter rules in a network namespace of our own.

Only loopback is in such a namespace, so a program with all its services in it talks to itself
and to nobody else, and rules by port hit exactly the links they should. Needs root.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import psutil

OURS = "EXPERTMESH_OWN_NETWORK"
"""Set for programs that run in a namespace of their own."""


def is_ours() -> bool:
    return bool(os.environ.get(OURS))


def unavailable() -> str:
    """Why there can be no namespace here, or an empty text."""
    if os.geteuid() != 0:
        return "a network namespace of our own needs root"
    for tool in ("unshare", "ip", "iptables"):
        if shutil.which(tool, path=_PATH) is None:
            return f"the command {tool} is missing"
    rule = f"ip link set lo up && iptables {_WAIT} -A INPUT -p tcp --dport 1 -j DROP"
    done = _run([*_UNSHARE, "sh", "-c", rule], check=False)
    return "" if done.returncode == 0 else f"no packet filter here: {done.stderr.strip()[:200]}"


def python_inside(*arguments: str) -> list[str]:
    """The command that runs Python with these arguments in a new namespace.

    It has a process namespace too, so that all its processes end with it, however it ends.
    """
    up = 'ip link set lo up && exec "$@"'
    return [*_UNSHARE, "sh", "-c", up, "sh", sys.executable, *arguments]


def stop(inside: subprocess.Popen[Any], within_s: float) -> None:
    """End what `python_inside` started. SIGTERM goes to the program: `unshare` ignores it."""
    if inside.poll() is None:
        for program in psutil.Process(inside.pid).children():
            program.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            inside.wait(within_s)
    inside.kill()
    inside.wait(10)


def environment_inside() -> dict[str, str]:
    return {**os.environ, OURS: "1", "PATH": _PATH}


def drop(port: int) -> None:
    """Silently drop every packet to and from this port."""
    lose([port], 1.0)


def lose(ports: Sequence[int], share: float) -> None:
    """This share of the packets to and from these ports."""
    assert is_ours(), "not in the namespace of everybody else"
    chance = (
        [] if share >= 1 else ["-m", "statistic", "--mode", "random", "--probability", str(share)]
    )
    for port in ports:
        for side in ("--dport", "--sport"):
            rule = ["-A", "INPUT", "-p", "tcp", side, str(port), *chance, "-j", "DROP"]
            _run(["iptables", _WAIT, *rule])


def heal() -> None:
    assert is_ours(), "not in the namespace of everybody else"
    _run(["iptables", _WAIT, "-F", "INPUT"])


_WAIT = "-w"
_UNSHARE = ("unshare", "--net", "--pid", "--fork", "--kill-child=KILL", "--mount-proc")
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def _run(command: list[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        check=check,
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, "PATH": _PATH},
    )
