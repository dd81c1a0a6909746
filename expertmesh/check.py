"""What does a check of `expertmesh doctor` say?"""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of `expertmesh doctor`."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


def judged(name: str, is_good: bool, found: str, advice: str) -> Check:
    """Ok if it is good, else a warning with the advice."""
    verdict = Verdict.OK if is_good else Verdict.WARNING
    return Check(name=name, verdict=verdict, found=found, advice="" if is_good else advice)
