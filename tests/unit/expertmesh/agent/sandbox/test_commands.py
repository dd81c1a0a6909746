"""What commands can do in a sandbox: all that work in a folder takes."""

import asyncio
import os
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

from expertmesh.agent.sandbox.bubblewrap import BubblewrapSandbox
from expertmesh.agent.sandbox.policy import Ending, Limits, Sandbox
from tests.support.expertmesh.sandbox.runner import make
from tests.support.expertmesh.sandbox.users import some_user

FILES = """
import os, pathlib, shutil, stat, tempfile
os.umask(0o027)
os.makedirs("a/b")
pathlib.Path("a/b/one").write_text("1")
assert stat.S_IMODE(os.stat("a/b/one").st_mode) == 0o640, oct(os.stat("a/b/one").st_mode)
assert stat.S_IMODE(os.stat("a").st_mode) == 0o750
with open("a/b/one", "a") as file:
    file.write("2")
    os.fchmod(file.fileno(), 0o600)
os.chmod("a/b/one", 0o755)
os.utime("a/b/one", (1, 2))
os.utime("a/b", None)
assert os.stat("a/b/one").st_mtime == 2
shutil.copy2("a/b/one", "two")
assert os.stat("two").st_mtime == 2 and os.stat("two").st_mode == os.stat("a/b/one").st_mode
shutil.copytree("a", "c")
os.rename("two", "c/two")
os.replace("c/two", "three")
os.link("three", "four")
os.symlink("a/b/one", "link")
pathlib.Path("link").write_text("through the link")
os.truncate("a/b/one", 7)
assert pathlib.Path("a/b/one").read_text() == "through"
with open("three", "r+b") as file:
    file.truncate(1)
os.remove("link")
shutil.rmtree("c")
os.rmdir(tempfile.mkdtemp(dir="."))
with tempfile.NamedTemporaryFile() as file, tempfile.TemporaryFile(dir=".") as other:
    file.write(b"x"), other.write(b"x")
    os.chmod(file.name, 0o600)
    shutil.copy(file.name, "five")
shutil.move("five", tempfile.gettempdir())
try:
    os.mkdir("a")
except FileExistsError:
    pass
try:
    open("missing/file", "w")
except FileNotFoundError:
    pass
try:
    os.rmdir("a")
except OSError as error:
    assert error.errno == 39, error
os.makedirs("a/b", exist_ok=True)
os.chdir("a")
pathlib.Path("../from-below").touch()
print(sorted(set(os.listdir("..")) - {".git"}))
"""
PROCESSES = """
import asyncio, subprocess, sys, threading
assert subprocess.run(["sh", "-c", "echo out; echo err >&2; exit 7"], capture_output=True) \
    .returncode == 7
assert subprocess.check_output("ls | cat", shell=True, text=True) == ""
async def main():
    process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    assert (await process.communicate(b"through cat"))[0] == b"through cat"
    process = await asyncio.create_subprocess_exec("sleep", "60")
    process.terminate()
    assert await process.wait() == -15
asyncio.run(main())
threads = [threading.Thread(target=print, args=("thread",)) for _ in range(8)]
[one.start() for one in threads], [one.join() for one in threads]
"""
SERVER = """
import http.server, threading, urllib.request
server = http.server.HTTPServer(("localhost", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://localhost:{server.server_port}/"
print(urllib.request.urlopen(url).status)
import multiprocessing
with multiprocessing.Pool(2) as pool:
    print(sum(pool.map(abs, [-1, -2])))
"""


async def python(sandbox: Sandbox, code: str, **arguments: str) -> str:
    outcome = await sandbox.run(["python3", "-c", code], **arguments)
    assert outcome.ok, (outcome.ending, outcome.stdout, outcome.stderr)
    return outcome.stdout


async def test_files_can_be_worked_with(sandbox: Sandbox, work: Path) -> None:
    assert await python(sandbox, FILES) == "['a', 'four', 'from-below', 'three']\n"
    assert (work / "three").stat().st_nlink == 2
    assert (work / "a" / "b" / "one").stat().st_uid == some_user().uid


async def test_processes_can_be_worked_with(sandbox: Sandbox) -> None:
    assert await python(sandbox, PROCESSES) == "thread\n" * 8


async def test_servers_can_be_tried_where_there_is_a_network_inside(
    sandbox: Sandbox, work: Path
) -> None:
    if not sandbox.mechanism.startswith("bubblewrap"):
        pytest.skip("there is no network at all")
    assert await python(sandbox, SERVER) == "200\n3\n"


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
async def test_programs_can_be_built_and_run(sandbox: Sandbox, work: Path) -> None:
    source = '#include <stdio.h>\nint main(void) { return puts("built") < 0; }\n'
    command = (
        "cat > a.c && gcc -o a a.c && ./a && printf '#!/bin/sh\\n./a' > b && chmod +x b && ./b"
    )
    outcome = await sandbox.run(["sh", "-c", command], stdin=source.encode())
    assert outcome.stdout == "built\nbuilt\n", outcome.stderr


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
async def test_git_can_be_asked(sandbox: Sandbox, work: Path) -> None:
    repository(work)
    for command in ("git status --short", "git diff", "git log --oneline", "git grep changed"):
        outcome = await sandbox.run(["sh", "-c", command])
        assert outcome.ok, outcome.stderr
        assert "file" in outcome.stdout
    refused = await sandbox.run(["git", "commit", "-am", "no"])
    assert refused.exit_code != 0
    assert "index.lock" in refused.stderr


def repository(work: Path) -> None:
    (work / "file").write_text("text\n")
    names = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", f"safe.directory={work}"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "a file"]):
        subprocess.run(["git", *names, *command], cwd=work, check=True)
    some_user().own(work)
    (work / "file").write_text("changed\n")


async def test_a_folder_without_git_gets_none(sandbox: Sandbox, work: Path) -> None:
    outcome = await sandbox.run(["sh", "-c", "git init; mkdir .git; echo x > .git/config"])
    assert outcome.exit_code != 0
    assert not (work / ".git" / "config").exists()


def test_what_kept_the_place_of_git_is_gone_with_the_sandbox(sandbox: Sandbox, work: Path) -> None:
    kind = "bubblewrap" if sandbox.mechanism.startswith("bubblewrap") else "landlock"
    other = make(kind, work)
    assert asyncio.run(other.run(["true"])).ok
    del other
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("stdin", [b"", b"text", bytes(3 << 20)], ids=["none", "some", "much"])
async def test_stdin_is_empty_unless_given(sandbox: Sandbox, stdin: bytes) -> None:
    outcome = await sandbox.run(["wc", "-c"], stdin=stdin)
    assert outcome.stdout.strip() == str(len(stdin))


async def test_a_command_need_not_read_what_it_is_given(sandbox: Sandbox) -> None:
    assert (await sandbox.run(["true"], stdin=bytes(3 << 20))).ok


@pytest.mark.parametrize(
    ("command", "exit_code"),
    [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137), ("kill -SEGV $$", 139)],
)
async def test_exit_codes_are_a_shells(sandbox: Sandbox, command: str, exit_code: int) -> None:
    outcome = await sandbox.run(["sh", "-c", command])
    assert (outcome.ending, outcome.exit_code) == (Ending.EXITED, exit_code)


async def test_a_program_that_does_not_exist_is_said_to(sandbox: Sandbox) -> None:
    outcome = await sandbox.run(["no-such-program"])
    assert outcome.exit_code == 127
    assert "no-such-program" in outcome.stderr


async def test_a_command_starts_in_the_folder_asked_for(sandbox: Sandbox, work: Path) -> None:
    (work / "a b").mkdir()
    assert (await sandbox.run(["pwd"], folder="a b")).stdout == f"{work}/a b\n"
    assert (await sandbox.run(["pwd"])).stdout == f"{work}\n"
    with pytest.raises(ValueError, match="outside"):
        await sandbox.run(["pwd"], folder="..")
    with pytest.raises(ValueError, match="argv is empty"):
        await sandbox.run([])


async def test_arguments_are_passed_as_they_are(sandbox: Sandbox) -> None:
    odd = ["--version", "", "a b", "$HOME", "ä\n'\"", "-- x", "\udcff"]
    code = "import os, sys; print([os.fsencode(one) for one in sys.argv[1:]])"
    outcome = await sandbox.run(["python3", "-c", code, *odd])
    assert outcome.stdout.strip() == str([os.fsencode(one) for one in odd])


@pytest.mark.parametrize("argument", ["a\0b", "\ud800"])
async def test_what_cannot_be_an_argument_is_refused(sandbox: Sandbox, argument: str) -> None:
    with pytest.raises(ValueError, match=r"argv\[1\] holds a null character"):
        await sandbox.run(["echo", argument])


async def test_arguments_that_are_too_long_are_the_commands_fault(sandbox: Sandbox) -> None:
    outcome = await sandbox.run(["echo", "x" * (3 << 20)])
    assert (outcome.ending, outcome.exit_code) == (Ending.EXITED, 126)
    assert "Argument list too long" in outcome.stderr


async def test_temporary_files_have_a_place_also_with_an_old_bubblewrap(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(sandbox, BubblewrapSandbox):
        pytest.skip("this is about bubblewrap before 0.7")
    monkeypatch.setattr(sandbox, "_sizes_tmpfs", False)
    place = f"/tmp/{uuid.uuid4()}"
    script = f"echo x > {place} && cat {place}; echo > /dev/shm/x"
    outcome = await sandbox.run(["sh", "-c", script])
    assert outcome.stdout == "x\n"
    assert "Read-only file system" in outcome.stderr
    assert not os.path.exists(place)  # noqa: ASYNC240 (nothing to wait for)


async def test_read_only_means_that_only_temporary_files_can_be_written(
    sandbox: Sandbox, work: Path
) -> None:
    kind = "bubblewrap" if sandbox.mechanism.startswith("bubblewrap") else "landlock"
    (work / "file").write_text("text")
    some_user().own(work)
    command = 'cat file; echo x > "$TMPDIR/x" && cat "$TMPDIR/x"; echo x > file; rm file; mkdir a'
    outcome = await make(kind, work, mode="read-only").run(["sh", "-c", command])
    assert outcome.stdout == "textx\n"
    assert (work / "file").read_text() == "text"
    assert not (work / "a").exists()


async def test_temporary_files_of_one_command_are_not_there_for_the_next(sandbox: Sandbox) -> None:
    await sandbox.run(["sh", "-c", 'echo x > "$TMPDIR/left"'])
    assert not (await sandbox.run(["sh", "-c", 'cat "$TMPDIR/left"'])).ok


async def test_several_commands_run_at_once(sandbox: Sandbox) -> None:
    commands = [["sh", "-c", f"sleep 0.2; echo {n}; echo {n} > {n}; cat {n}"] for n in range(5)]
    outcomes = await asyncio.gather(*map(sandbox.run, commands))
    assert [one.stdout for one in outcomes] == [f"{n}\n{n}\n" for n in range(5)]


async def test_open_files_do_not_become_more(sandbox: Sandbox) -> None:
    await sandbox.run(["true"])
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        await sandbox.run(["sh", "-c", "cat"], stdin=b"x")
        await sandbox.run(["sleep", "60"], limits=Limits(wall_s=0.1))
    assert sorted(os.listdir("/proc/self/fd")) == before
