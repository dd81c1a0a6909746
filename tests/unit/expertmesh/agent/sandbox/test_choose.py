"""What works is chosen; where nothing does, it is said why and what to install."""

import asyncio
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from expertmesh.agent.sandbox import bubblewrap, choose
from expertmesh.agent.sandbox.choose import choose_sandbox
from expertmesh.agent.sandbox.landlock import sandbox as landlock_sandbox
from expertmesh.agent.sandbox.policy import (
    DEFAULT_LIMITS,
    Ending,
    Limits,
    Outcome,
    SandboxUnavailableError,
)
from expertmesh.agent.sandbox.probe import probe
from tests.support.expertmesh.sandbox.users import ROOT_USER, some_user
from tests.support.expertmesh.sandbox.working import why_not


class Fake:
    """Says what it is told to."""

    mechanism = "fake"

    def __init__(self, stdout: str = "", stderr: str = "", does: Callable[..., object] = len):
        self._stdout, self._stderr, self._does = stdout, stderr, does

    async def run(
        self,
        argv: Sequence[str],
        *,
        limits: Limits = DEFAULT_LIMITS,
        folder: str = ".",
        stdin: bytes = b"",
        on_output: Callable[[str], None] | None = None,
    ) -> Outcome:
        self._does(argv)
        return Outcome(Ending.EXITED, 0, self._stdout, self._stderr, 0.0, clipped=False)


def needs(kind: str) -> None:
    user = some_user()
    if reason := why_not(kind, ROOT_USER if user.is_another else user):
        pytest.skip(reason)


def test_bubblewrap_comes_first(work: Path) -> None:
    needs("bubblewrap")
    assert choose_sandbox(work).mechanism.startswith("bubblewrap ")


def test_landlock_comes_next(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("landlock")
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name, path: None)
    assert choose_sandbox(work).mechanism == "landlock and seccomp"


async def test_it_can_be_chosen_on_a_running_event_loop(work: Path) -> None:
    needs("bubblewrap")
    assert (await choose_sandbox(work).run(["true"])).ok


@pytest.mark.parametrize(
    ("restricted", "words"),
    [("1\n", "bwrap-userns-restrict"), ("0\n", "apt install bubblewrap"), (None, "dnf install")],
)
def test_without_any_it_is_said_what_to_install(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restricted: str | None, words: str
) -> None:
    def no_landlock() -> int:
        raise OSError("Landlock: Function not implemented")

    apparmor = tmp_path / "apparmor"
    if restricted is not None:
        apparmor.write_text(restricted)
    monkeypatch.setattr(choose, "APPARMOR", apparmor)
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name, path: None)
    monkeypatch.setattr(landlock_sandbox, "version", no_landlock)
    with pytest.raises(SandboxUnavailableError) as caught:
        choose_sandbox(work)
    text = str(caught.value)
    assert "bwrap is not installed (package bubblewrap)" in text
    assert "the kernel has no Landlock" in text
    assert words in text


def test_an_old_landlock_is_not_enough(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda name, path: None)
    monkeypatch.setattr(landlock_sandbox, "version", lambda: 5)
    with pytest.raises(SandboxUnavailableError, match=r"version 5; 6 \(Linux 6\.12\)"):
        choose_sandbox(work)


def test_a_program_of_the_work_folder_is_not_started(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bwrap", "prlimit"):
        (work / name).write_text("#!/bin/sh\necho bubblewrap 9.9\n")
        (work / name).chmod(0o755)
    monkeypatch.setattr(bubblewrap, "PROGRAMS", str(work))
    monkeypatch.setattr(landlock_sandbox, "version", lambda: 1)
    with pytest.raises(SandboxUnavailableError, match="lies in the work folder"):
        choose_sandbox(work)


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("linux", "riscv64")])
def test_other_systems_are_told_so(
    work: Path, monkeypatch: pytest.MonkeyPatch, system: str, machine: str
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(SandboxUnavailableError, match="only for Linux on x86_64 and aarch64"):
        choose_sandbox(work)


def test_a_mode_that_does_not_exist_is_refused(work: Path) -> None:
    with pytest.raises(ValueError, match="read-only, workspace and off"):
        choose_sandbox(work, "yolo")  # type: ignore[arg-type]


def test_off_says_that_it_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "secret")
    sandbox = choose_sandbox(tmp_path, "off")
    assert sandbox.mechanism == "none"
    outcome = asyncio.run(sandbox.run(["sh", "-c", "pwd; env; exit 3"]))
    assert outcome.exit_code == 3
    assert outcome.stdout.splitlines()[0] == str(tmp_path)
    assert "secret" not in outcome.stdout
    killed = asyncio.run(sandbox.run(["sh", "-c", "kill -9 $$"]))
    assert (killed.ending, killed.exit_code) == (Ending.EXITED, 137)
    slow = asyncio.run(sandbox.run(["sleep", "60"], limits=Limits(wall_s=0.2)))
    assert slow.ending is Ending.WALL_TIME


@pytest.mark.parametrize(
    ("sandbox", "words"),
    [
        (Fake(stderr="bwrap: No permissions"), "does not run: bwrap: No permissions"),
        (Fake(stdout="inside readable"), "does not hold"),
        (Fake(stdout="inside writable"), "does not hold"),
        (Fake(stdout="inside creatable"), "does not hold"),
        (Fake("inside", does=lambda argv: Path(argv[-1]).touch()), "files outside were changed"),
        (Fake("inside", does=lambda argv: Path(argv[-2]).write_text("x")), "outside were changed"),
    ],
)
def test_a_sandbox_that_does_not_hold_is_not_taken(sandbox: Fake, words: str) -> None:
    with pytest.raises(SandboxUnavailableError, match=words):
        probe(sandbox, has_namespaces=False)


def test_a_sandbox_without_namespaces_of_its_own_is_not_taken_for_one_with() -> None:
    import os

    sandbox = Fake(stdout=f"inside {os.readlink('/proc/self/ns/net')}")
    probe(sandbox, has_namespaces=False)
    with pytest.raises(SandboxUnavailableError, match="does not hold"):
        probe(sandbox, has_namespaces=True)
