"""Is the task done? A command of the user's says so, in the sandbox."""

from dataclasses import dataclass

from expertmesh.agent.loop.hints import Hints
from expertmesh.agent.sandbox.policy import Ending, Limits, Sandbox

MAX_ROUNDS = 3
"""So often is the command run; each failure but the last goes back to the model."""
LIMITS = Limits(wall_s=120.0, cpu_s=120.0)


@dataclass(frozen=True)
class Check:
    """One run of the command."""

    command: str
    passed: bool
    text: str
    """How it ended and what it printed."""
    seconds: float


class Verifier:
    """Runs the check of `--check`."""

    def __init__(self, command: str, sandbox: Sandbox, limits: Limits = LIMITS):
        self.command = command
        self._sandbox = sandbox
        self._limits = limits

    async def check(self) -> Check:
        outcome = await self._sandbox.run(["sh", "-c", self.command], limits=self._limits)
        ended = f"exit code {outcome.exit_code}"
        if outcome.ending is not Ending.EXITED:
            ended = f"stopped by its limit on {outcome.ending.value}"
        printed = "\n".join(part for part in (outcome.stdout, outcome.stderr) if part.strip())
        return Check(self.command, outcome.ok, f"{ended}\n{printed}".strip(), outcome.seconds)


def failure_message(check: Check, text: str, hints: Hints) -> str:
    """What the model is told; `text` is the check's, clipped."""
    return hints.check_failed.format(command=check.command, text=text)
