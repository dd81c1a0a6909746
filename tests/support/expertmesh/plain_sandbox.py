"""A sandbox that keeps nothing in: it runs commands as they are, for tests of what runs them."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from expertmesh.agent.sandbox.policy import Ending, Limits, Outcome


class PlainSandbox:
    """Runs commands in a folder, and remembers them; only the time is limited."""

    mechanism = "none"

    def __init__(self, work_dir: Path):
        self.work_dir = work_dir
        self.ran: list[Sequence[str]] = []

    async def run(
        self,
        argv: Sequence[str],
        *,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        folder: str = ".",
        stdin: bytes = b"",
        on_output: Callable[[str], None] | None = None,
    ) -> Outcome:
        self.ran.append(argv)
        place = (self.work_dir / folder).resolve()
        if not place.is_relative_to(self.work_dir.resolve()) or not place.is_dir():
            raise ValueError(f"{folder}: no folder of the work folder")
        started_s = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=place,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        ending = Ending.EXITED
        try:
            async with asyncio.timeout(limits.wall_s):
                out, err = await process.communicate(stdin)
        except TimeoutError:
            process.kill()
            out, err = await process.communicate()
            ending = Ending.WALL_TIME
        except asyncio.CancelledError:
            process.kill()
            await process.communicate()
            raise
        if on_output is not None:
            on_output((out + err).decode("utf-8", "replace"))
        return Outcome(
            ending,
            process.returncode if ending is Ending.EXITED else None,
            out.decode("utf-8", "replace"),
            err.decode("utf-8", "replace"),
            time.monotonic() - started_s,
            False,
        )
