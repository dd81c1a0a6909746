"""Did a script do what it was for? If not, why, in words for the model that wrote it."""

import re
from dataclasses import dataclass

from expertmesh.agent.sandbox.policy import Ending, Limits
from expertmesh.agent.tools.command_result import command_result
from expertmesh.assistants.data.workbench import Ran
from expertmesh.assistants.tables.cells import shown_cell

_SAVES_PICTURE = re.compile(r"\bsavefig\s*\(|\.write_image\s*\(")


@dataclass(frozen=True)
class Fault:
    """What is wrong with a run."""

    what: str
    """In our words."""
    detail: str = ""
    """In the script's, which may be the data's."""

    def __str__(self) -> str:
        return f"{self.what}: {self.detail}" if self.detail else self.what


def fault_of(ran: Ran, script: str) -> Fault | None:
    """None for a run that counts."""
    outcome = ran.outcome
    if outcome.ending is not Ending.EXITED:
        return Fault(f"it was stopped by its limit on {outcome.ending.value}")
    if outcome.exit_code:
        lines = outcome.stderr.strip().splitlines()
        last = shown_cell(lines[-1].strip(), 200) if lines else ""
        return Fault(f"exit code {outcome.exit_code}", last)
    if not outcome.stdout.strip():
        return Fault("it printed nothing; print the numbers that answer the goal, with their names")
    for one in ran.produced:
        if one.fault:
            return Fault("a picture that it saved is none", f"{shown_cell(one.path)}: {one.fault}")
    if _SAVES_PICTURE.search(script) and not any(one.is_picture for one in ran.produced):
        return Fault("it saves a picture, and there is none in its folder")
    return None


def result_text(ran: Ran, limits: Limits) -> str:
    """All that a run printed, how it ended, and the files that it left."""
    told = command_result(ran.outcome, limits, "").text
    if not ran.produced:
        return told
    files = "\n".join(
        f"{shown_cell(one.path, 200)}: {one.size_bytes:,} bytes" for one in ran.produced
    )
    return f"{told}\nfiles:\n{files}"
