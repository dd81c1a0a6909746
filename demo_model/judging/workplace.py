"""A toy project in a real folder, and the agent's tools on it, as far as a repair needs them."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from demo_model.programs.project import Project
from demo_model.tasks.repair import TEST_COMMAND
from demo_model.toolboxes.shapes import Shapes

WALL_S = 30
MEMORY_BYTES = 1 << 30
COMMANDS = (TEST_COMMAND, "pytest -q", "ls")
"""Command lines that are run; the model is not given a shell here."""

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
    try:
        done = subprocess.run(
            argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=WALL_S,
            check=False, preexec_fn=_limit, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, "", ""
    return done.returncode, done.stdout, done.stderr


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (WALL_S, WALL_S))


def has_bubblewrap() -> bool:
    return shutil.which("bwrap") is not None


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """One project in its folder."""

    folder: Path
    project: Project
    runner: Runner
    shapes: Shapes

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / self.project.file).write_text(self.project.source)
        (self.folder / self.project.test_file).write_text(self.project.test_source)

    def passes(self) -> bool:
        """Whether real pytest passes, with the tests as they were given."""
        (self.folder / self.project.test_file).write_text(self.project.test_source)
        return self.runner(_argv(TEST_COMMAND), self.folder)[0] == 0

    def call(self, name: str, arguments: dict[str, str]) -> str:
        """What the agent's tool of this name answers."""
        if name == "shell":
            return self._shell(arguments.get("command", ""))
        if name == "file_editor":
            return self._edit(arguments)
        return f"Not called: there is no tool {name!r} here"

    def _shell(self, command: str) -> str:
        if command not in COMMANDS:
            return self.shapes.ran(f"{command.split(' ')[0]}: not found", 127, to_stderr=True)
        code, out, err = self.runner(_argv(command), self.folder)
        if code is None:
            return f"stopped after {WALL_S}.0 s by its limit on wall time of {WALL_S} s"
        if code and err.strip():
            return f"exit code {code}\nstdout:\n{out.rstrip()}\nstderr:\n{err.rstrip()}"
        return self.shapes.ran(out, code, chatter=err.rstrip() if not code else "")

    def _edit(self, arguments: dict[str, str]) -> str:
        path = arguments.get("file_path", "")
        file = self.folder / path
        if path not in (self.project.file, self.project.test_file) or not file.is_file():
            return self.shapes.no_file(path)
        text = file.read_text()
        if arguments.get("action") in ("view", "read"):
            lines = text.count("\n")
            return f"{self.shapes.viewed(text)}\n[2] {path}:1-{lines}"
        old, new = arguments.get("old_text", ""), arguments.get("new_text", "")
        if not old or text.count(old) != 1:
            return self.shapes.no_match(path)
        file.write_text(text.replace(old, new))
        line = text[: text.index(old)].count("\n") + 1
        try:
            compile(text.replace(old, new), path, "exec")
        except SyntaxError as error:
            near = f": {error.text.strip()[:80]}" if error.text else ""
            return self.shapes.bad_syntax(path, line, f"line {error.lineno}: {error.msg}{near}")
        return self.shapes.edited(path, line)


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
