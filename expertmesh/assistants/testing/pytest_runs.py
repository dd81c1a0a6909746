"""Which tests passed? pytest in the workshop, and its summary read line by line."""

import re
from dataclasses import dataclass, field

from expertmesh.agent.loop.clip import clipped
from expertmesh.agent.sandbox.policy import Ending, Limits, Outcome
from expertmesh.assistants.testing.workshop import Workshop

LIMITS = Limits(wall_s=60.0, cpu_s=60.0)
"""Of all tests together."""
_SUMMARY = re.compile(r"^(PASSED|FAILED|ERROR) (?:\S+?\.py::)?(\S+?)(?:\[.*?\])?(?: - (.*))?$")
_TOLD_BYTES = 4 << 10


class NoPytestError(ValueError):
    """The Python of the sandbox has no pytest."""


@dataclass(frozen=True)
class TestRun:
    """One run of a file of tests."""

    __test__ = False  # it is no class of tests, whatever its name begins with

    outcome: Outcome
    passed: tuple[str, ...] = ()
    """Functions, and "Class::method"."""
    failed: dict[str, str] = field(default_factory=dict)
    """The same, or a file that could not be imported -> what pytest says of it in a line."""

    @property
    def ok(self) -> bool:
        """Whether there are tests, and all of them passed."""
        return self.outcome.ok and bool(self.passed) and not self.failed

    def text(self) -> str:
        """What a model is told of it, and a user."""
        if self.outcome.ending is not Ending.EXITED:
            ended = f"stopped after {self.outcome.seconds:.0f} s: {self.outcome.ending.value}\n"
        else:
            ended = ""
        printed = "\n".join(one for one in (self.outcome.stdout, self.outcome.stderr) if one)
        return clipped(ended + printed.strip(), _TOLD_BYTES)


async def run_tests(
    workshop: Workshop,
    file: str,
    *,
    imports: str,
    limits: Limits = LIMITS,
    first_only: bool = False,
) -> TestRun:
    """Run one file; `first_only`: up to the first failure. Raises NoPytestError."""
    flags = ["-q", "--no-header", "--color=no", "--tb=short", "-rfEp", "-o", "addopts="]
    flags += ["-p", "no:cacheprovider", *(["-x"] if first_only else [])]
    outcome = await workshop.python("-m", "pytest", *flags, file, imports=imports, limits=limits)
    if outcome.exit_code == 1 and "No module named pytest" in outcome.stderr:
        raise NoPytestError(
            "pytest is missing where tests are run: install it for the Python that runs "
            "expertmesh (pip install pytest)"
        )
    passed, failed = [], {}
    for line in outcome.stdout.splitlines():
        found = _SUMMARY.match(line)
        if found is None:
            continue
        if found[1] == "PASSED":
            passed.append(found[2])
        else:
            failed[found[2]] = found[3] or "no reason given"
    return TestRun(
        outcome, tuple(one for one in dict.fromkeys(passed) if one not in failed), failed
    )
