"""Run what a sandbox has prepared until it ends or has to be ended, and leave nothing behind."""

import asyncio
import errno
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from expertmesh.agent.sandbox.policy import (
    Ending,
    Limits,
    Outcome,
    SandboxUnavailableError,
)
from expertmesh.agent.sandbox.process.growth import Growth
from expertmesh.agent.sandbox.process.limits import Watchdog
from expertmesh.agent.sandbox.process.output import KeptOutput
from expertmesh.agent.sandbox.process.started import Prepared, Started

TOO_LONG = 126
"""A shell's exit code for a program that cannot be started."""
FLOOD = 64
"""A command that writes this many times more than is kept of it is not worth waiting for."""


def check_argv(argv: Sequence[str]) -> None:
    """Raises ValueError if there is no program, or an argument that none can be given."""
    if not argv:
        raise ValueError("argv is empty")
    for place, argument in enumerate(argv):
        try:
            is_possible = b"\0" not in os.fsencode(argument)
        except UnicodeEncodeError:
            is_possible = False
        if not is_possible:
            raise ValueError(f"argv[{place}] holds a null character, or one that is none")


async def run_prepared(
    prepared: Prepared, limits: Limits, stdin: bytes, on_output: Callable[[str], None] | None
) -> Outcome:
    """Run it, watched, and return when every descendant is gone.

    Raises SandboxUnavailableError if the sandbox ended without having run the command.
    """
    started_s = time.monotonic()
    flood = asyncio.Event()

    def tell(text: str) -> None:
        if out.total_bytes + err.total_bytes > FLOOD * limits.output_bytes:
            flood.set()
        elif on_output is not None:
            on_output(text)

    out, err = KeptOutput(limits.output_bytes, tell), KeptOutput(limits.output_bytes, tell)
    growing = [Growth(*one) for one in prepared.growing]
    try:
        started = Started(prepared, (out, err), stdin)
    except OSError as error:
        if error.errno != errno.E2BIG:
            raise SandboxUnavailableError(f"the sandbox did not start: {error}") from None
        seconds = time.monotonic() - started_s
        return Outcome(Ending.EXITED, TOO_LONG, "", f"{error.strerror}\n", seconds, clipped=False)
    watchdog = Watchdog(started.process.pid, limits, growing, prepared.helpers)
    try:
        ending = await _ending(started, watchdog, flood, limits.wall_s)
    finally:
        try:
            await _though_cancelled(lambda: started.end(watchdog))
        finally:
            started.close()
    if (failure := started.failure()) is not None:
        raise failure
    out.finish()
    err.finish()
    exit_code = None
    if ending is Ending.EXITED:
        ending, exit_code = _how_it_exited(prepared, started, err.text)
    return Outcome(
        ending,
        exit_code,
        out.text,
        err.text,
        time.monotonic() - started_s,
        clipped=out.is_clipped or err.is_clipped,
    )


async def _ending(
    started: Started, watchdog: Watchdog, flood: asyncio.Event, wall_s: float
) -> Ending:
    """Wait for the first reason to end; KILLED if the caller's callback failed."""
    exited = asyncio.create_task(started.exit())
    watching = asyncio.create_task(watchdog.watch())
    flooded = asyncio.create_task(flood.wait())
    failed = asyncio.create_task(started.callback_failed())
    waiting = {exited, watching, flooded, failed}
    try:
        done, _ = await asyncio.wait(waiting, timeout=wall_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
        await _though_cancelled(lambda: asyncio.wait(waiting))
    if exited in done:
        return Ending.EXITED
    if flooded in done:
        return Ending.OUTPUT
    if watching in done:
        return watching.result()
    return Ending.KILLED if failed in done else Ending.WALL_TIME


def _how_it_exited(prepared: Prepared, started: Started, stderr: str) -> tuple[Ending, int | None]:
    """The command's exit code as a shell tells it, or that the sandbox was killed around it."""
    code = started.process.returncode
    if prepared.status_file is None:
        return Ending.EXITED, code if code >= 0 else 128 - code
    if "exit-code" in started.status and "error" not in started.status:
        return Ending.EXITED, int(started.status["exit-code"])
    if code < 0:
        return Ending.KILLED, None
    reason = started.status.get("error") or stderr.strip() or f"exit code {code}"
    raise SandboxUnavailableError(f"the sandbox did not start: {reason}")


async def _though_cancelled(work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Finish it in any case, and be cancelled only then.

    When a loop is closed, it cancels all tasks, also the one of the work: then that begins again.
    """
    cancelled: asyncio.CancelledError | None = None
    task = asyncio.create_task(work())
    while not task.done() or task.cancelled():
        if task.cancelled():
            task = asyncio.create_task(work())
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()
