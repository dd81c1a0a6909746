"""How does a cluster run in the background, and how is it found and stopped again?"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from expertmesh.cluster.children import child_environment, python_module
from expertmesh.cluster.state import RunDir, is_alive
from expertmesh.console import CommandError

_POLL_S = 0.1
KILL_WAIT_S = 5.0
SERVING = ("ready", "degraded")
"""Phases of a cluster that has started and is not stopping."""


def start_detached(
    run_dir: RunDir,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Start `expertmesh up ARGUMENTS` in its own session; returns its state when ready.

    `environment`: extra variables, for values that do not belong on a command line. The
    output goes to supervisor.log and, until the cluster is ready, to `say`. Raises CommandError
    naming that log when the start fails.
    """
    run_dir.remove_state()
    log_path = run_dir.log_path("supervisor")
    with open(log_path, "wb") as log:
        supervisor = subprocess.Popen(
            python_module("expertmesh", "up", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**child_environment(), **environment},
            start_new_session=True,
        )
    try:
        with open(log_path, encoding="utf-8", errors="replace") as log_text:
            while True:
                ended = supervisor.poll() is not None
                for line in log_text:
                    say(line.rstrip("\n"))
                state = run_dir.read() or {}
                if ended:
                    raise CommandError(f"the cluster did not start; its log: {log_path}")
                if state.get("pid") == supervisor.pid and state.get("phase") in SERVING:
                    return state
                time.sleep(_POLL_S)
    except KeyboardInterrupt:
        supervisor.terminate()
        raise CommandError("interrupted: the cluster is stopping") from None


def stop_running(
    run_dir: RunDir, state: dict[str, Any], timeout_s: float, say: Callable[[str], None]
) -> bool:
    """Send SIGTERM, and SIGKILL after `timeout_s`; returns whether SIGTERM was enough.

    `say` gets what it waits for, again and again.
    """
    pid, started_at = state["pid"], state["started_at"]
    os.kill(pid, signal.SIGTERM)
    if _await_end(pid, started_at, timeout_s, say):
        return True
    os.kill(pid, signal.SIGKILL)  # its services die with it (guard.py)
    _await_end(pid, started_at, KILL_WAIT_S, say)
    run_dir.remove_state()
    return False


def end_leftovers(state: dict[str, Any]) -> list[str]:
    """Kill services that outlived their supervisor; returns their names (normally none)."""
    ended = []
    for service in state.get("services", []):
        if is_alive(service.get("pid"), service.get("started_at")):
            os.kill(service["pid"], signal.SIGKILL)
            ended.append(service["name"])
    return ended


def _await_end(pid: int, started_at: float, timeout_s: float, say: Callable[[str], None]) -> bool:
    deadline = time.monotonic() + timeout_s
    while is_alive(pid, started_at):
        if time.monotonic() > deadline:
            return False
        say(f"stopping; waiting for at most {deadline - time.monotonic():.0f} s more")
        time.sleep(_POLL_S)
    return True
