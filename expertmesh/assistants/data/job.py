"""From a file and a goal to a folder with a report: what a command and a program both want."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from expertmesh.agent.sandbox.policy import Limits
from expertmesh.assistants.data.analyse import Analysis, Analyst
from expertmesh.assistants.data.out_folder import OutFolder
from expertmesh.assistants.data.report import conclusion_text, report
from expertmesh.assistants.data.workbench import LIMITS, Workbench
from expertmesh.assistants.model import TextModel
from expertmesh.assistants.prompts import language_of
from expertmesh.assistants.tables.describe import size_text, summary
from expertmesh.assistants.tables.profile import Profile, profile_file
from expertmesh.assistants.watch import Watching


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
    profile = read_profile(file, encoding=encoding, delimiter=delimiter, watching=watching)
    if not profile.rows_read:
        raise ValueError(f"{file}: it has no rows")
    with Workbench(file, limits=limits) as bench:
        folder = OutFolder(out, force=force)
        watching.begins(f"copying {size_text(profile.size_bytes)}")
        await bench.open(lambda done_bytes: watching.says(size_text(done_bytes)))
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


def read_profile(
    file: Path,
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
    watching: Watching | None = None,
) -> Profile:
    """Tell how far it is, and what is odd about the file. Raises TableError and OSError."""
    watching = watching or Watching()
    watching.begins(f"reading {file.name}")
    profile = profile_file(
        file,
        encoding=encoding,
        delimiter=delimiter,
        progress=lambda done, total: watching.says(f"{size_text(done)} of {size_text(total)}"),
    )
    watching.begins(summary(profile))
    for note in profile.facts.notes:
        watching.note(f"{profile.name}: {note}")
    return profile
