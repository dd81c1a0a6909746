"""What does the model read of a command that was run?"""

from expertmesh.agent.sandbox.policy import Ending, Limits, Outcome
from expertmesh.agent.tools.tool import Result, Source, Status

PYTHON = "python3"
"""The sandbox finds the interpreter that runs this first, if whom it runs commands as can reach it,
else the system's."""
MAX_PLACE_CHARS = 120
USUAL = Limits()
"""Of a command for which nobody asked for more."""


def command_result(outcome: Outcome, limits: Limits, place: str) -> Result:
    """`place`: how the command is cited, in one line.

    What a command prints that succeeds and complains of nothing stands alone, and before the number
    by which it is cited: a small model takes the first number for the result.
    """
    place = " ".join(place.split())[:MAX_PLACE_CHARS]
    if outcome.ok and not outcome.stderr.strip():
        text = outcome.stdout.rstrip("\n") or "(it printed nothing)"
        return Result(Status.OK, text, (Source.of(place, outcome.stdout),))
    parts = [_ended(outcome, limits)]
    parts += [f"stdout:\n{outcome.stdout.rstrip()}"] if outcome.stdout.strip() else []
    parts += [f"stderr:\n{outcome.stderr.rstrip()}"] if outcome.stderr.strip() else []
    timed_out = outcome.ending in (Ending.WALL_TIME, Ending.CPU_TIME)
    status = Status.OK if outcome.ok else Status.TIMED_OUT if timed_out else Status.FAILED
    text = "\n".join(parts)
    return Result(status, text, (Source.of(place, text),))


def _ended(outcome: Outcome, limits: Limits) -> str:
    if outcome.ending is Ending.EXITED:
        return f"exit code {outcome.exit_code}"
    bounds = {
        Ending.WALL_TIME: f"{limits.wall_s:.0f} s",
        Ending.CPU_TIME: f"{limits.cpu_s:.0f} s",
        Ending.MEMORY: f"{limits.memory_bytes >> 20} MiB",
        Ending.PROCESSES: str(limits.processes),
        Ending.GROWTH: f"{limits.growth_bytes >> 20} MiB",
    }
    bound = f" of {bounds[outcome.ending]}" if outcome.ending in bounds else ""
    if outcome.ending is Ending.KILLED:
        return f"killed after {outcome.seconds:.1f} s"
    return f"stopped after {outcome.seconds:.1f} s by its limit on {outcome.ending.value}{bound}"
