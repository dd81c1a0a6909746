"""A toy project in a real folder, and the agent's tools on it, as far as a repair needs them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from demo_model.programs.project import Project
from demo_model.tasks.repair import TEST_COMMAND
from demo_model.toolboxes.agent_results import AgentResults, exited, timed_out
from expertmesh.agent.contained import Folder
from expertmesh.agent.loop.hints import Hints
from expertmesh.agent.sandbox.policy import DEFAULT_LIMITS, Ending, Limits, Outcome

WALL_S = 30
MEMORY_BYTES = 1 << 30
_LIMITS = f"ulimit -v {MEMORY_BYTES >> 10} && ulimit -t {WALL_S}"
COMMANDS = (TEST_COMMAND, "pytest -q", "ls")
"""Command lines that are run; the model is not given a shell here."""
NEEDED = {"shell": ("command",), "file_editor": ("action", "file_path")}
"""Tool -> the arguments that it requires."""

Runner = Callable[[list[str], Path], tuple[int | None, str, str]]
"""(argv, folder) -> (exit code or None if it took too long, stdout, stderr)."""


def bubblewrapped(argv: list[str], folder: Path) -> tuple[int | None, str, str]:
    """Run with no network, and with nothing writable but the folder."""
    wrapped = [
        *("bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"),
        *("--bind", str(folder), str(folder), "--chdir", str(folder), *argv),
    ]
    return plain(wrapped, folder)


def plain(argv: list[str], folder: Path) -> tuple[int | None, str, str]:
    """Run with limits on time and memory alone."""
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "80",
    }
    limited = ["sh", "-c", f'{_LIMITS} && exec "$@"', "sh", *argv]
    try:
        done = subprocess.run(
            limited, cwd=folder, env=environment, capture_output=True, text=True, timeout=WALL_S,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, "", ""
    return done.returncode, done.stdout, done.stderr


def has_bubblewrap() -> bool:
    return shutil.which("bwrap") is not None


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """One project in its folder."""

    folder: Path
    project: Project
    runner: Runner
    hints: Hints

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / self.project.file).write_text(self.project.source)
        (self.folder / self.project.test_file).write_text(self.project.test_source)

    @cached_property
    def _results(self) -> AgentResults:
        return AgentResults(Folder(self.folder), _Sandbox(self.folder, self.runner), self.hints)

    def passes(self) -> bool:
        """Whether real pytest passes, with the tests as they were given."""
        (self.folder / self.project.test_file).write_text(self.project.test_source)
        return self.runner(_argv(TEST_COMMAND), self.folder)[0] == 0

    def call(self, name: str, arguments: dict[str, str]) -> str:
        """What the agent's tool of this name answers. Raises GivenUpError as the agent does."""
        needed = NEEDED.get(name)
        if needed is None:
            return self._not_called(f"there is no tool {name!r} here")
        missing = [each for each in needed if each not in arguments]
        if missing:
            return self._not_called(f"{name}: {missing[0]} is missing")
        return self._results.call(name, arguments)

    def _not_called(self, reason: str) -> str:
        return self.hints.not_called.format(reason=reason)


class _Sandbox:
    """Runs the few commands that are allowed."""

    mechanism = "none"

    def __init__(self, folder: Path, runner: Runner) -> None:
        self._folder = folder
        self._runner = runner

    async def run(
        self,
        argv: Sequence[str],
        *,
        limits: Limits = DEFAULT_LIMITS,
        folder: str = ".",
        stdin: bytes = b"",
        on_output: Callable[[str], None] | None = None,
    ) -> Outcome:
        command = argv[-1]
        if command not in COMMANDS:
            return exited("", f"{command.split(' ')[0]}: not found", 127)
        code, out, err = self._runner(_argv(command), self._folder)
        return timed_out(Ending.WALL_TIME, WALL_S) if code is None else exited(out, err, code)


def _argv(command: str) -> list[str]:
    if command == "ls":
        return ["ls"]
    off = (
        "no:cacheprovider",
        "no:xdist",
        "no:asyncio",
        "no:anyio",
        "no:hypothesispytest",
        "no:timeout",
    )
    return [sys.executable, "-m", "pytest", "-q", *(part for name in off for part in ("-p", name))]
