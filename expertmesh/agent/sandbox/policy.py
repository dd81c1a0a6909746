"""What may a command in the sandbox use, how did it end, and what can every sandbox do?"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Literal, Protocol

Mode = Literal["read-only", "workspace", "off"]
"""Nothing is writable but /tmp; the work folder is, too; there is no sandbox."""


class SandboxUnavailableError(RuntimeError):
    """No sandbox works on this machine; the text says what is missing and what to install."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one command and all its descendants may use together, unless stated otherwise."""

    wall_s: float = 30.0
    cpu_s: float = 30.0
    memory_bytes: int = 1 << 30
    """Resident memory."""
    processes: int = 64
    file_bytes: int = 64 << 20
    """For each file written."""
    growth_bytes: int = 256 << 20
    """By how much the work folder may grow."""
    output_bytes: int = 64 << 10
    """Kept of stdout and of stderr: head and tail. A command that writes many times more ends."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"Limits.{field.name} is {value}; it must be above 0 and finite")


DEFAULT_LIMITS = Limits()


class Ending(StrEnum):
    """Why a command ended: by itself, by a limit, or because something else killed it."""

    EXITED = "exited"
    WALL_TIME = "wall time"
    CPU_TIME = "CPU time"
    MEMORY = "memory"
    PROCESSES = "processes"
    GROWTH = "growth of the work folder"
    OUTPUT = "output"
    KILLED = "killed"


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    ending: Ending
    exit_code: int | None
    """None unless it ended by itself."""
    stdout: str
    stderr: str
    seconds: float
    clipped: bool
    """Whether stdout or stderr lacks its middle."""

    @property
    def ok(self) -> bool:
        return self.ending is Ending.EXITED and self.exit_code == 0


class Sandbox(Protocol):
    """Runs commands in one work folder."""

    mechanism: str
    """For people: "bubblewrap 0.8.0", "landlock and seccomp", "none"."""

    async def run(
        self,
        argv: Sequence[str],
        *,
        limits: Limits = DEFAULT_LIMITS,
        folder: str = ".",
        stdin: bytes = b"",
        on_output: Callable[[str], None] | None = None,
    ) -> Outcome:
        """Run a command until it ends or a limit ends it; nothing that it started survives.

        `folder` is where it starts, relative to the work folder. `on_output` gets stdout and
        stderr as they come, in pieces. Cancelling the task ends the command and its descendants.
        Raises ValueError if `argv` is empty or impossible, or `folder` is outside the work folder
        or none.
        """
        ...
