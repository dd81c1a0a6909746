"""From a file and a goal to a folder with a report: what a command and a program both want."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from expertmesh.agent.sandbox.policy import Limits
from expertmesh.assistants.asking.model import TextModel
from expertmesh.assistants.data.analyse import Analysis, Analyst
from expertmesh.assistants.data.out_folder import OutFolder
from expertmesh.assistants.data.report import conclusion_text, report
from expertmesh.assistants.data.workbench import LIMITS, Workbench
from expertmesh.assistants.prompts import language_of
from expertmesh.assistants.tables.describe import size_text, summary
from expertmesh.assistants.tables.profile import Profile, profile_file
from expertmesh.assistants.tables.sniff import TableError
from expertmesh.assistants.watch import Watching

Told = TypeVar("Told")


@dataclass(frozen=True)
class Job:
    """An analysis and where it is."""

    analysis: Analysis
    profile: Profile
    report: Path | None
    """None if no script did."""
    places: Mapping[str, str] = field(default_factory=dict)
    """The script's name of each file -> where it is, relative to the folder."""

    @property
    def conclusion(self) -> str:
        """With marks."""
        return conclusion_text(self.analysis)


async def analyse_file(
    model: TextModel,
    file: Path,
    goal: str,
    out: Path,
    *,
    force: bool = False,
    encoding: str | None = None,
    delimiter: str | None = None,
    limits: Limits = LIMITS,
    watching: Watching | None = None,
) -> Job:
    """Profile, scripts, conclusion, report.

    Raises TableError, ValueError for an `out` with files unless `force`, OSError, ChatError and
    SandboxUnavailableError.
    """
    watching = watching or Watching()
    if not goal.strip():
        raise ValueError("the goal is empty: say what you want to know")
    profile = await read_profile(file, encoding=encoding, delimiter=delimiter, watching=watching)
    if not profile.rows_read:
        raise ValueError(f"{file}: it has no rows")
    with Workbench(file, limits=limits) as bench:
        folder = OutFolder(out, force=force)
        watching.begins(f"copying {size_text(profile.size_bytes)}")
        await bench.open(_from_thread(lambda done_bytes: watching.says(size_text(done_bytes))))
        analyst = Analyst(model, profile, bench, watching=watching)
        language = language_of(goal)
        done = await analyst.analyse(goal, language=language, keep_try=folder.keep_try)
        if not done.succeeded:
            return Job(done, profile, None)
        folder.keep_script(done.script)
        places = folder.keep_produced(bench.folder, done.produced)
        text = report(
            done,
            profile,
            places=places,
            model=model.name,
            sandbox=bench.mechanism,
            when=time.strftime("%Y-%m-%d %H:%M"),
        )
        return Job(done, profile, folder.keep_report(text), places)


async def read_profile(
    file: Path,
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
    watching: Watching | None = None,
) -> Profile:
    """Tell how far it is, and what is odd about the file. Raises TableError and OSError."""
    watching = watching or Watching()
    watching.begins(f"reading {file.name}")
    tell = _from_thread(watching.says)
    is_left = threading.Event()

    def progress(done: int, total: int) -> None:
        if is_left.is_set():
            raise TableError("nobody waits for its profile any more")
        tell(f"{size_text(done)} of {size_text(total)}")

    try:
        profile = await asyncio.to_thread(
            profile_file, file, encoding=encoding, delimiter=delimiter, progress=progress
        )
    finally:
        is_left.set()
    watching.begins(summary(profile))
    for note in profile.facts.notes:
        watching.note(f"{profile.name}: {note}")
    return profile


def _from_thread(tell: Callable[[Told], None]) -> Callable[[Told], None]:
    """The same, called in this loop's thread, to be used from another."""
    loop = asyncio.get_running_loop()

    def later(told: Told) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, told)

    return later
