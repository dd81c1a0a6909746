"""Nothing that a command has started outlives it, however it ends, and whoever ends it."""

import asyncio
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from expertmesh.agent.sandbox.policy import Ending, Limits, Sandbox
from expertmesh.agent.sandbox.process.limits import Watchdog
from tests.support.expertmesh.sandbox.runner import KINDS
from tests.support.expertmesh.sandbox.users import ROOT_USER, some_user
from tests.support.expertmesh.sandbox.working import open_folder, start, why_not

DAEMON = """
import os, signal, sys, time
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        for file in range(256):
            try:
                os.close(file)
            except OSError:
                pass
        while True:
            file = os.open("beat", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.write(file, b"x")
            os.close(file)
            time.sleep(0.01)
    os._exit(0)
os.wait()
while not os.path.exists("beat"):
    time.sleep(0.01)
print("started", flush=True)
"""
STAY = "time.sleep(60)"
CRASH = "os.kill(os.getpid(), signal.SIGKILL)"


def argv(token: str, then: str = "") -> list[str]:
    return ["python3", "-c", DAEMON + then, token]


def alive(token: str) -> list[int]:
    """Processes with this word in their command line; a sandbox's own are among them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and token in process.cmdline():
                found.append(process.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def assert_nothing_is_left(token: str, work: Path) -> None:
    assert alive(token) == []
    beats = (work / "beat").stat().st_size
    time.sleep(0.1)
    assert (work / "beat").stat().st_size == beats


@pytest.mark.parametrize(
    ("then", "ending"),
    [("", Ending.EXITED), (CRASH, Ending.EXITED), (STAY, Ending.WALL_TIME)],
    ids=["it exits", "it crashes", "its time is over"],
)
async def test_when_a_command_ends(sandbox: Sandbox, work: Path, then: str, ending: Ending) -> None:
    token = secrets.token_hex(8)
    outcome = await sandbox.run(
        argv(token, then), limits=Limits(wall_s=1.0 if then == STAY else 30)
    )
    assert outcome.ending is ending
    assert outcome.stdout == "started\n"
    assert_nothing_is_left(token, work)


async def test_when_the_task_is_cancelled(sandbox: Sandbox, work: Path) -> None:
    token, started = secrets.token_hex(8), asyncio.Event()
    task = asyncio.create_task(sandbox.run(argv(token, STAY), on_output=lambda _: started.set()))
    await asyncio.wait_for(started.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_nothing_is_left(token, work)


@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.02, 0.05])
async def test_when_the_task_is_cancelled_while_it_starts(
    sandbox: Sandbox, work: Path, after_s: float
) -> None:
    token = secrets.token_hex(8)
    (work / "beat").touch()
    task = asyncio.create_task(sandbox.run(argv(token, STAY)))
    await asyncio.sleep(after_s)
    task.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_nothing_is_left(token, work)


async def test_when_the_listener_fails(sandbox: Sandbox, work: Path) -> None:
    def listener(_: str) -> None:
        raise LookupError("the terminal is gone")

    token = secrets.token_hex(8)
    with pytest.raises(LookupError, match="the terminal is gone"):
        await sandbox.run(argv(token, STAY), on_output=listener)
    assert_nothing_is_left(token, work)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("starter", ["root", "user"])
def test_when_the_agent_is_killed(kind: str, starter: str, work: Path) -> None:
    who = ROOT_USER if starter == "root" else some_user()
    if reason := why_not(kind, who):
        pytest.skip(reason)
    token = secrets.token_hex(8)
    orders = {"kind": kind, "work": str(work), "runs": [{"argv": argv(token, STAY)}]}
    with open_folder(some_user()) as temporary:
        temporary.chmod(0o777)
        agent = start(who, orders, variables={"TMPDIR": str(temporary)})
        wait_for(lambda: (work / "beat").exists())
        agent.kill()
        agent.communicate(timeout=20)
        wait_for(lambda: not alive(token))
        wait_for(lambda: not list(temporary.iterdir()))
    assert_nothing_is_left(token, work)


KILLED_AGENT = """
import asyncio, sys
from pathlib import Path
from tests.support.expertmesh.sandbox.runner import make

sandbox = make("bubblewrap", Path(sys.argv[1]))
sandbox._bwrap = sys.argv[2]
asyncio.run(sandbox.run(sys.argv[3:]))
"""
STARTS_LATE = """#!/bin/sh
here=$(dirname "$0")
touch "$here/waits"
while [ ! -e "$here/go" ]; do sleep 0.01; done
bwrap "$@"
touch "$here/ended"
"""


def test_when_the_agent_is_killed_before_bubblewrap_knows_its_parent(work: Path) -> None:
    """What is started then comes to nothing."""
    if reason := why_not("bubblewrap", some_user()):
        pytest.skip(reason)
    token = secrets.token_hex(8)
    with open_folder(some_user()) as scripts:
        late = scripts / "late"
        late.write_text(STARTS_LATE)
        late.chmod(0o755)
        command = ["-P", "-c", KILLED_AGENT, str(work), str(late), *argv(token, STAY)]
        agent = some_user().start(command, Path("/"), {})
        wait_for(lambda: (scripts / "waits").exists())
        agent.kill()
        agent.communicate(timeout=20)
        (scripts / "go").touch()
        wait_for(lambda: (scripts / "ended").exists())
    assert not (work / "beat").exists()
    assert alive(token) == []


async def test_when_the_sandbox_itself_is_killed(
    sandbox: Sandbox, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, started, seen = secrets.token_hex(8), threading.Event(), threading.Event()
    look = Watchdog.look_at_processes

    def look_and_tell(watchdog: Watchdog) -> Ending | None:
        is_started = started.is_set()
        ending = look(watchdog)
        if is_started:
            seen.set()
        return ending

    monkeypatch.setattr(Watchdog, "look_at_processes", look_and_tell)
    # One that needs nothing more from the sandbox.
    idle = DAEMON.replace("time.sleep(0.01)\n    os._exit", "time.sleep(60)\n    os._exit") + STAY
    command = ["python3", "-c", idle, token]
    task = asyncio.create_task(sandbox.run(command, on_output=lambda _: started.set()))
    assert await asyncio.to_thread(seen.wait, 20)
    (outer,) = psutil.Process().children()
    outer.kill()
    outcome = await asyncio.wait_for(task, 60)
    assert (outcome.ending, outcome.exit_code) == (Ending.KILLED, None)
    assert_nothing_is_left(token, work)


def wait_for(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
