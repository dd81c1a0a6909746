"""Each limit ends a command that passes it, with all that the command has started."""

from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from expertmesh.agent.sandbox.folders.removal import remove_tree
from expertmesh.agent.sandbox.policy import Ending, Limits, Outcome, Sandbox
from tests.support.expertmesh.sandbox import working
from tests.support.expertmesh.sandbox.runner import KINDS
from tests.support.expertmesh.sandbox.users import ROOT_USER, some_user
from tests.support.expertmesh.sandbox.working import why_not

SMALL = Limits(
    wall_s=20.0,
    cpu_s=15.0,
    memory_bytes=200 << 20,
    processes=20,
    file_bytes=4 << 20,
    growth_bytes=10 << 20,
    output_bytes=4 << 10,
)
IN_CHILDREN = """
import os, time
for _ in range(4):
    if os.fork() == 0:
        os.setsid()
        {does}
        time.sleep(60)
time.sleep(60)
"""
MEMORY = "import time; x = b'x' * {size}; time.sleep(60)"
SHARED_MEMORY = """
import mmap, time
x = mmap.mmap(-1, 300 << 20)
x.write(b'x' * (300 << 20))
time.sleep(60)
"""
FILES = """
import os, time
for number in range(12):
    open(f"{number}", "wb").write(bytes(1 << 20))
time.sleep(60)
"""
FORK_BOMB = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"


def slow(*values: object) -> ParameterSet:
    return pytest.param(*values, marks=pytest.mark.slow)


def empty(work: Path) -> None:
    """As others could not."""
    remove_tree(work)
    work.mkdir()


async def run(sandbox: Sandbox, code: str, limits: Limits = SMALL) -> Outcome:
    return await sandbox.run(["python3", "-c", code], limits=limits)


@pytest.mark.parametrize(
    ("limit", "code", "ending"),
    [
        ({"wall_s": 0.3}, "import time; time.sleep(60)", Ending.WALL_TIME),
        ({"cpu_s": 0.4}, "while True: pass", Ending.CPU_TIME),
        slow({"cpu_s": 1.0}, IN_CHILDREN.format(does="while True: pass"), Ending.CPU_TIME),
        ({}, MEMORY.format(size=300 << 20), Ending.MEMORY),
        slow({}, SHARED_MEMORY, Ending.MEMORY),
        ({}, IN_CHILDREN.format(does="x = b'x' * (80 << 20)"), Ending.MEMORY),
        ({"processes": 2}, IN_CHILDREN.format(does="pass"), Ending.PROCESSES),
        ({}, FILES, Ending.GROWTH),
        ({}, "while True: print('x' * 1000)", Ending.OUTPUT),
        ({}, "import os\nwhile True: os.write(2, b'x' * 1000)", Ending.OUTPUT),
    ],
    ids=[
        *("wall", "cpu", "cpu of children", "memory", "shared memory", "memory of children"),
        *("processes", "growth", "output", "errors"),
    ],
)
async def test_a_limit_ends_a_command(
    sandbox: Sandbox, limit: dict[str, float], code: str, ending: Ending
) -> None:
    outcome = await run(sandbox, code, Limits(**{**vars(SMALL), **limit}))
    assert (outcome.ending, outcome.exit_code) == (ending, None), outcome.stderr


async def test_what_is_below_the_limits_is_left_alone(sandbox: Sandbox) -> None:
    code = """
import os, subprocess, sys, time
children = [subprocess.Popen([sys.executable, "-c", "x = b'x' * (20 << 20)"]) for _ in range(3)]
assert [child.wait() for child in children] == [0, 0, 0]
for number in range(4):
    open(f"{number}", "wb").write(bytes(2 << 20))
print("x" * 3000)
time.sleep(0.4)
"""
    outcome = await run(sandbox, code)
    assert outcome.ok, outcome
    assert not outcome.clipped


async def test_a_file_grows_no_larger_than_allowed(sandbox: Sandbox, work: Path) -> None:
    outcome = await run(sandbox, "open('large', 'wb').write(bytes(30 << 20))")
    assert outcome.exit_code == 1
    assert "File too large" in outcome.stderr
    assert (work / "large").stat().st_size <= SMALL.file_bytes


async def test_a_file_is_not_made_larger_than_allowed_by_its_name(
    sandbox: Sandbox, work: Path
) -> None:
    code = "import os; open('large', 'w').close(); os.truncate('large', 30 << 20)"
    outcome = await run(sandbox, code)
    assert outcome.exit_code != 0
    assert (work / "large").stat().st_size <= SMALL.file_bytes


async def test_files_that_have_no_name_any_more_count_too(sandbox: Sandbox) -> None:
    code = """
import os, time
held = []
for number in range(12):
    file = open("gone", "wb")
    os.unlink("gone")
    file.write(bytes(1 << 20))
    file.flush()
    held.append(file)
time.sleep(60)
"""
    assert (await run(sandbox, code)).ending is Ending.GROWTH


@pytest.mark.slow
async def test_folders_too_deep_to_look_into_do_not_hide_growth(
    sandbox: Sandbox, work: Path
) -> None:
    code = """
import os, time
for level in range(60):
    os.mkdir("d" * 100)
    os.chdir("d" * 100)
for number in range(12):
    open(f"{number}", "wb").write(bytes(1 << 20))
time.sleep(60)
"""
    outcome = await run(sandbox, code)
    empty(work)
    assert outcome.ending is Ending.GROWTH or "File name too long" in outcome.stderr


@pytest.mark.slow
async def test_temporary_files_are_limited(sandbox: Sandbox) -> None:
    code = """
import os, tempfile, time
for number in range(10):
    with open(os.path.join(tempfile.gettempdir(), str(number)), "wb") as file:
        for _ in range(32):
            file.write(bytes(1 << 20))
time.sleep(60)
"""
    limits = Limits(**{**vars(SMALL), "file_bytes": 64 << 20})
    outcome = await run(sandbox, code, limits)
    assert outcome.ending is Ending.GROWTH or "No space left" in outcome.stderr


@pytest.mark.slow
async def test_a_fork_bomb_ends(sandbox: Sandbox) -> None:
    outcome = await run(sandbox, FORK_BOMB)
    assert outcome.ending in (Ending.PROCESSES, Ending.MEMORY)


@pytest.mark.slow
@pytest.mark.parametrize("starter", ["root", "user"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_limits_hold_whoever_starts_it(kind: str, starter: str, work: Path) -> None:
    """The kernel's own limit of processes does not bind root, and a user has no cgroup."""
    who = ROOT_USER if starter == "root" else some_user()
    if reason := why_not(kind, who):
        pytest.skip(reason)
    tried = [
        (FORK_BOMB, {}, {Ending.PROCESSES, Ending.MEMORY}),
        (IN_CHILDREN.format(does="x = b'x' * (80 << 20)"), {}, {Ending.MEMORY}),
        (IN_CHILDREN.format(does="while True: pass"), {"cpu_s": 1.0}, {Ending.CPU_TIME}),
        (FILES, {}, {Ending.GROWTH}),
        ("while True: print('x' * 1000)", {}, {Ending.OUTPUT}),
    ]
    runs = [
        {"argv": ["python3", "-c", code], "limits": {**vars(SMALL), **limit}}
        for code, limit, _ in tried
    ]
    outcomes = working.run(who, {"kind": kind, "work": str(work), "runs": runs})
    for outcome, (code, _, endings) in zip(outcomes, tried, strict=True):
        assert Ending(outcome["ending"]) in endings, (code, outcome)


async def test_head_and_tail_of_the_output_are_kept(sandbox: Sandbox) -> None:
    heard: list[str] = []
    outcome = await sandbox.run(
        ["python3", "-c", "for i in range(3000): print(f'line {i}')"],
        limits=SMALL,
        on_output=heard.append,
    )
    assert outcome.ok
    assert outcome.clipped
    assert outcome.stdout.startswith("line 0\nline 1\n")
    assert outcome.stdout.endswith("line 2998\nline 2999\n")
    assert "bytes left out" in outcome.stdout
    assert len(outcome.stdout) < SMALL.output_bytes + 100
    assert "".join(heard).splitlines() == [f"line {i}" for i in range(3000)]
