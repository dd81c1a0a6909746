"""How does a Python program use the data assistant? `DataAnalysisAssistant(model)`.

from expertmesh import DataAnalysisAssistant

assistant = DataAnalysisAssistant("http://127.0.0.1:8000")
done = assistant.analyse("sales.csv", "Which city sells most?", out="analysis")
print(done.conclusion, done.output)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from expertmesh.agent.web.marking import marked
from expertmesh.assistants.asking.extract import code_of
from expertmesh.assistants.asking.model import TextModel
from expertmesh.assistants.asking.structured import UselessAnswerError, whole
from expertmesh.assistants.assistant import Assistant
from expertmesh.assistants.data.analyse import first_question
from expertmesh.assistants.data.explain import Level, ask_text, explain_concept, explain_file
from expertmesh.assistants.data.job import Job, analyse_file
from expertmesh.assistants.data.suggest import Suggestion, suggest
from expertmesh.assistants.prompts import language_of, prompt
from expertmesh.assistants.tables.describe import describe
from expertmesh.assistants.tables.profile import Profile, profile_file
from expertmesh.assistants.tables.reading import reading

_USUAL = {"python": "3", "pandas": "", "numpy": "", "matplotlib": ""}


@dataclass(frozen=True)
class AnalysisRun:
    """What came of a goal."""

    succeeded: bool
    """Whether a script ran, and printed something."""
    conclusion: str
    """The model's, from the output; numbers that were not printed carry a mark."""
    output: str
    code: str
    pictures: tuple[Path, ...]
    report: Path | None
    faults: tuple[str, ...]
    """Of the tries before the one that did."""


class DataAnalysisAssistant(Assistant):
    """Analyses files of data with a model. Scripts run in the sandbox, beside a copy of the data.

    Where a method takes a goal or a concept, its language (English or Chinese) is the answer's.
    """

    def analyse(
        self, file: str | Path, goal: str, out: str | Path, *, force: bool = False
    ) -> AnalysisRun:
        """Have a script written, run and mended up to 3 times; `out` gets the report.

        Raises TableError for a file that is no table, ValueError for an `out` with files unless
        `force`, OSError and SandboxUnavailableError.
        """

        async def work(model: TextModel) -> Job:
            return await analyse_file(
                model, Path(file), goal, Path(out), force=force, watching=self._watching
            )

        job = self._with_model(work)
        done, root = job.analysis, Path(out)
        return AnalysisRun(
            succeeded=done.succeeded,
            conclusion=job.conclusion,
            output=done.output,
            code=done.script,
            pictures=tuple(root / job.places[one.path] for one in done.produced if one.is_picture),
            report=job.report,
            faults=tuple(str(one.fault) for one in done.tries if one.fault is not None),
        )

    def profile(self, file: str | Path) -> Profile:
        """What is in a file, without a model. Raises TableError and OSError."""
        return profile_file(Path(file))

    def generate_analysis_code(self, data_description: str | Path, analysis_goal: str) -> str:
        """A script that was not run. `data_description`: a file of data, or words about one."""
        language = language_of(analysis_goal)
        described, read_by = str(data_description), ""
        file = _file(data_description)
        if file is not None:
            profile = profile_file(file)
            described = _shown(profile, language)
            read_by = reading(profile.facts, str(file), has_pandas=True)
        messages = first_question(
            analysis_goal, language, described=described, read_by=read_by, installed=_USUAL
        )

        async def work(model: TextModel) -> str:
            answer = whole(await model.ask(messages, on_piece=self._watching.piece))
            code = code_of(answer.text)
            if code is None:
                raise UselessAnswerError("the model's answer holds no Python script")
            return code

        return self._with_model(work)

    def explain_statistical_concept(self, concept: str, level: str = "beginner") -> str:
        """`level`: beginner, intermediate or advanced; ValueError for another."""
        if level not in list(Level):
            raise ValueError(f"level: one of {', '.join(Level)}, got {level!r}")

        async def work(model: TextModel) -> str:
            explained = await explain_concept(
                model,
                concept,
                level=Level(level),
                language=language_of(concept),
                watching=self._watching,
            )
            return explained.text

        return self._with_model(work)

    def suggest_visualization(self, data_type: str | Path, analysis_purpose: str) -> str:
        """`data_type`: a file of data, or words about data."""
        language = language_of(analysis_purpose)
        file = _file(data_type)
        data = str(data_type) if file is None else _shown(profile_file(file), language)
        told = prompt("visualise", language, purpose=analysis_purpose, data=data)

        async def work(model: TextModel) -> str:
            return (await ask_text(model, told, self._watching)).text

        return self._with_model(work)

    def explain(self, file: str | Path, column: str | None = None, language: str = "en") -> str:
        """A file, or one column of it, in words. Raises TableError, ValueError and OSError."""
        profile = profile_file(Path(file))
        named = profile.column(column) if column is not None else None

        async def work(model: TextModel) -> str:
            explained = await explain_file(
                model, profile, column=named, language=language, watching=self._watching
            )
            return explained.text

        return self._with_model(work)

    def suggest(self, file: str | Path, number: int = 5, about: str = "") -> Sequence[Suggestion]:
        """Questions about a file that are worth asking. Raises TableError and OSError."""
        profile = profile_file(Path(file))

        async def work(model: TextModel) -> Sequence[Suggestion]:
            found = await suggest(
                model,
                profile,
                number=number,
                about=about,
                language=language_of(about),
                watching=self._watching,
            )
            return found.found

        return self._with_model(work)


def _file(described: str | Path) -> Path | None:
    """The file, if it is the name of one."""
    if isinstance(described, Path):
        return described
    is_short = len(described) < 4096 and described.isprintable()
    return Path(described) if is_short and Path(described).is_file() else None


def _shown(profile: Profile, language: str) -> str:
    return marked(describe(profile, language), f"the file {profile.name}")
