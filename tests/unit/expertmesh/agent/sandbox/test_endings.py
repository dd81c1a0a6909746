"""Whatever comes in between while a command is ended, nothing of it is left: no process, no file.

The moments are made: a program in the place of the sandbox does at the worst one what a busy
machine makes a real one do there now and then.
"""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from expertmesh.agent.sandbox.policy import Ending, Limits, Outcome
from expertmesh.agent.sandbox.process import started
from expertmesh.agent.sandbox.process.limits import Watchdog, descendants
from expertmesh.agent.sandbox.process.running import run_prepared
from expertmesh.agent.sandbox.process.started import Prepared, file_with
from tests.support.expertmesh.sandbox.runner import make
from tests.support.expertmesh.sandbox.users import ROOT_USER, some_user
from tests.support.expertmesh.sandbox.working import open_folder, why_not

STARTS_A_CHILD_LATE = """
import os, sys, time
while not os.path.exists("go"):
    time.sleep(0.001)
if os.fork() == 0:
    if sys.argv[1] == "leaves":
        os.setsid()
    if sys.argv[1] == "takes long to die":
        os.closerange(1, 3)
        memory = b"x" * (256 << 20)
    with open("new", "w") as file:
        file.write(str(os.getpid()))
    os.rename("new", "child")
    time.sleep(60)
while not os.path.exists("child"):
    time.sleep(0.001)
if len(sys.argv) > 2:
    os.write(int(sys.argv[2]), b'{"child-pid": %s}\\n' % open("child", "rb").read())
open("done", "w").close()
time.sleep(60)
"""


def sandbox_like(folder: Path, *words: str, **options: Any) -> Prepared:
    argv = [sys.executable, "-S", "-c", STARTS_A_CHILD_LATE, *words]
    return Prepared(argv=argv, environment={}, folder=folder, **options)


async def run(prepared: Prepared, wall_s: float = 0.05) -> Outcome:
    return await run_prepared(prepared, Limits(wall_s=wall_s), b"", None)


def wait_for(path: Path) -> None:
    deadline_s = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


@pytest.fixture
def starts_it_while_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The list of descendants is out of date when it is made."""

    def look(pid: int) -> list[psutil.Process]:
        found = descendants(pid)
        (tmp_path / "go").touch()
        wait_for(tmp_path / "done")
        return found

    monkeypatch.setattr(started, "descendants", look)


def is_gone(folder: Path) -> bool:
    pid = int((folder / "child").read_text())
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.usefixtures("starts_it_while_looked_for")
@pytest.mark.parametrize("child", ["stays", "takes long to die"])
async def test_a_child_that_was_started_while_it_was_looked_for_goes(
    tmp_path: Path, child: str
) -> None:
    outcome = await run(sandbox_like(tmp_path, child))
    assert outcome.ending is Ending.WALL_TIME
    assert is_gone(tmp_path)


@pytest.mark.usefixtures("starts_it_while_looked_for")
async def test_a_namespace_goes_whose_first_process_was_told_of_late(tmp_path: Path) -> None:
    files = sorted(os.listdir("/proc/self/fd"))
    status_file = file_with()
    await run(sandbox_like(tmp_path, "leaves", str(status_file), status_file=status_file))
    assert is_gone(tmp_path)
    assert sorted(os.listdir("/proc/self/fd")) == files


@pytest.fixture
def held_up(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """(set when the end of a command has begun, to be set when it may go on)"""
    begun, may_go_on = threading.Event(), threading.Event()

    def look(pid: int) -> list[psutil.Process]:
        begun.set()
        assert may_go_on.wait(20)
        return descendants(pid)

    monkeypatch.setattr(started, "descendants", look)
    return begun, may_go_on


def cancel_it(task: asyncio.Task[Any]) -> None:
    task.cancel()


def cancel_all(task: asyncio.Task[Any]) -> None:
    """As a loop does that is closed."""
    for one in asyncio.all_tasks() - {asyncio.current_task()}:
        one.cancel()


@pytest.mark.parametrize("cancel", [cancel_it, cancel_all])
async def test_it_is_ended_though_that_is_cancelled_again_and_again(
    held_up: tuple[threading.Event, threading.Event],
    tmp_path: Path,
    cancel: Callable[[asyncio.Task[Any]], None],
) -> None:
    begun, may_go_on = held_up
    files = sorted(os.listdir("/proc/self/fd"))
    (tmp_path / "go").touch()
    task = asyncio.create_task(run(sandbox_like(tmp_path, "stays"), wall_s=60))
    await asyncio.to_thread(wait_for, tmp_path / "done")
    task.cancel()
    assert await asyncio.to_thread(begun.wait, 20)
    for _ in range(3):
        cancel(task)
        await asyncio.sleep(0.01)
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert is_gone(tmp_path)
    assert sorted(os.listdir("/proc/self/fd")) == files


async def test_no_thread_goes_on_looking_at_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    looks: list[str] = []

    def look(_: Watchdog) -> None:
        looks.append("begins")
        time.sleep(0.3)
        looks.append("ends")

    monkeypatch.setattr(Watchdog, "look_at_processes", look)
    await run(sandbox_like(tmp_path, "stays"), wall_s=0.15)
    assert looks == ["begins", "ends"]


LANDLOCK = why_not("landlock", ROOT_USER if some_user().is_another else some_user())
by_landlock = pytest.mark.skipif(bool(LANDLOCK), reason=LANDLOCK)

FORKS_LATE = """
import os, time
print("ready", flush=True)
while not os.path.exists("go"):
    time.sleep(0.001)
if os.fork() == 0:
    os.setsid()
    time.sleep(60)
"""


@by_landlock
async def test_a_launcher_that_gets_no_turn_is_not_waited_for_forever(
    monkeypatch: pytest.MonkeyPatch, work: Path
) -> None:
    """And who was started meanwhile goes, too."""
    looks: list[list[psutil.Process]] = []

    def look(pid: int) -> list[psutil.Process]:
        found = descendants(pid)
        if not looks:
            launcher = psutil.Process(pid)
            launcher.suspend()
            (work / "go").touch()
            deadline_s = time.monotonic() + 20
            while {*descendants(pid)} <= {*found}:
                assert time.monotonic() < deadline_s
        looks.append(found)
        return found

    monkeypatch.setattr(started, "descendants", look)
    monkeypatch.setattr(started, "PATIENCE_S", 0.2)
    ready = asyncio.Event()
    command = ["python3", "-c", FORKS_LATE]
    task = asyncio.create_task(make("landlock", work).run(command, on_output=lambda _: ready.set()))
    await asyncio.wait_for(ready.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert {*looks[1]} - {*looks[0]}
    assert not [one for one in looks[1] if started._runs(one)]


HALF_DEAD_AGENT = """
import asyncio, ctypes, os, platform, sys, threading
from pathlib import Path
from tests.support.expertmesh.sandbox.runner import make

def live_on():
    sys.stdin.read()
    os._exit(0)

def leave(_):
    ctypes.CDLL(None).syscall(60 if platform.machine() == "x86_64" else 93, 0)

threading.Thread(target=live_on).start()
command = ["sh", "-c", "echo x >$TMPDIR/file; echo ready; sleep 60"]
asyncio.run(make("landlock", Path(sys.argv[1])).run(command, on_output=leave))
"""


@by_landlock
def test_temporary_files_go_when_an_agent_dies_one_thread_after_the_other(work: Path) -> None:
    """As it does where there are more threads than cores that have time for them."""
    with open_folder(some_user()) as temporary:
        agent = some_user().start(
            ["-P", "-c", HALF_DEAD_AGENT, str(work)],
            Path("/"),
            {"TMPDIR": str(temporary)},
            stdin=subprocess.PIPE,
        )
        try:
            deadline_s = time.monotonic() + 20
            while psutil.Process(agent.pid).status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < deadline_s
                time.sleep(0.02)
            while list(temporary.iterdir()):
                assert time.monotonic() < deadline_s
                time.sleep(0.02)
        finally:
            agent.communicate(timeout=20)
