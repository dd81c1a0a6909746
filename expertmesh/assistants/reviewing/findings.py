"""What does a review find, and how is it told? To people, to scripts, and to GitHub."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    @property
    def rank(self) -> int:
        """Higher is worse."""
        return {"error": 2, "warning": 1, "note": 0}[self.value]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, at a line that exists."""

    file: str
    line: int
    kind: str
    severity: Severity
    message: str
    code: str = ""
    """The line's text."""

    def text(self) -> str:
        head = f"{self.file}:{self.line}: {self.severity}: {self.kind}: {self.message}"
        return f"{head}\n    {self.code.strip()}" if self.code.strip() else head

    def annotation(self) -> str:
        """As a workflow command of GitHub, which shows it beside the line."""
        level = "notice" if self.severity is Severity.NOTE else self.severity.value
        place = f"file={_property(self.file)},line={self.line},title={_property(self.kind)}"
        return f"::{level} {place}::{_data(self.message)}"


@dataclass
class Review:
    """What came of a review."""

    findings: list[Finding] = field(default_factory=list)
    dropped: int = 0
    """Findings at lines that do not exist, or that the diff does not add."""
    failures: list[str] = field(default_factory=list)
    """Which lines were not reviewed, and why."""
    files: list[str] = field(default_factory=list)
    lines: int = 0
    """So many were looked at."""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __str__(self) -> str:
        return "\n".join([*(one.text() for one in self.findings), self.summary(), *self.notes()])

    def reaches(self, severity: Severity) -> bool:
        """Whether a finding is as severe as this, or more so."""
        return any(one.severity.rank >= severity.rank for one in self.findings)

    def summary(self) -> str:
        counts = [
            f"{count} {severity}{'' if count == 1 else 's'}"
            for severity in Severity
            if (count := sum(one.severity is severity for one in self.findings))
        ]
        files = f"{len(self.files)} file{'' if len(self.files) == 1 else 's'}"
        return f"{', '.join(counts) or 'nothing found'} in {self.lines} lines of {files}"

    def as_json(self) -> dict[str, Any]:
        return {
            "findings": [asdict(one) for one in self.findings],
            "dropped": self.dropped,
            "failures": self.failures,
            "files": self.files,
            "lines": self.lines,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }

    def notes(self) -> Iterator[str]:
        """What a user should know besides."""
        if self.dropped:
            what = "finding names a line" if self.dropped == 1 else "findings name lines"
            yield f"{self.dropped} {what} that the code shown does not have, and was left out"
        yield from (f"not reviewed: {one}" for one in self.failures)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
