"""No sandbox: commands run as the user who asked for that, with limits and a clean environment."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from expertmesh.agent.sandbox.folders.containment import folder_within
from expertmesh.agent.sandbox.policy import DEFAULT_LIMITS, Limits, Outcome
from expertmesh.agent.sandbox.process.running import check_argv, run_prepared
from expertmesh.agent.sandbox.process.started import Prepared

PASSED_ON = (
    "HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER",
    "VIRTUAL_ENV",
)  # fmt: skip
"""No keys are among them, whatever they are called."""


class Unconfined:
    """Commands can do all that the user can. What leaves its parent and session may survive."""

    mechanism = "none"

    def __init__(self, work_dir: Path):
        """Raises ValueError if the folder is none."""
        self._work = work_dir.resolve()
        if not self._work.is_dir():
            raise ValueError(f"{work_dir} is not a folder")

    async def run(
        self,
        argv: Sequence[str],
        *,
        limits: Limits = DEFAULT_LIMITS,
        folder: str = ".",
        stdin: bytes = b"",
        on_output: Callable[[str], None] | None = None,
    ) -> Outcome:
        check_argv(argv)
        start_in = folder_within(self._work, folder)
        prepared = Prepared(
            argv=["/bin/sh", "-c", 'exec "$0" "$@"', *argv],  # says what it cannot find, as others
            environment=_environment(os.environ),
            growing=[(self._work, limits.growth_bytes)] if sys.platform == "linux" else [],
            folder=start_in,
        )
        return await run_prepared(prepared, limits, stdin, on_output)


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    found = {name: ours[name] for name in PASSED_ON if name in ours}
    programs = [str(Path(sys.executable).parent), found.get("PATH", os.defpath)]
    return {**found, "PATH": os.pathsep.join(programs), "MPLBACKEND": "Agg"}
