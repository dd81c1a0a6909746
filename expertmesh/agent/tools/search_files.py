"""`search_files`: find text, or files by name, in the work folder."""

import json
from pathlib import Path
from typing import Any

from expertmesh.agent.sandbox.policy import Ending, Limits, Sandbox
from expertmesh.agent.tools import search_worker
from expertmesh.agent.tools.command_result import PYTHON
from expertmesh.agent.tools.tool import Effect, Result, Source, Status, object_schema

_LIMITS = Limits(wall_s=20.0, cpu_s=20.0)


class SearchFiles:
    """The search runs in the sandbox: an expression of a model's may take for ever, and a link may
    lead anywhere."""

    name = "search_files"
    description = (
        "Search the text files of the work folder. Returns lines as file:line: text; without a "
        "pattern the names of the files."
    )
    parameters = object_schema(
        {},
        {
            "pattern": {
                "type": "string",
                "description": "The text to find; with regex true, a Python regular expression.",
            },
            "files": {"type": "string", "description": "Which files, for example *.py"},
            "folder": {"type": "string", "description": "Where, in the work folder."},
            "regex": {"type": "boolean"},
            "ignore_case": {"type": "boolean"},
        },
    )
    effect = Effect.READS

    def __init__(self, sandbox: Sandbox, limits: Limits = _LIMITS):
        self._sandbox = sandbox
        self._limits = limits
        self._code = Path(search_worker.__file__).read_bytes()

    async def call(self, arguments: dict[str, Any]) -> Result:
        try:
            outcome = await self._sandbox.run(
                [PYTHON, "-I", "-", json.dumps(arguments)],
                limits=self._limits,
                folder=arguments.get("folder") or ".",
                stdin=self._code,
            )
        except ValueError as error:
            return Result(Status.FAILED, str(error))
        if outcome.ending is Ending.WALL_TIME or outcome.ending is Ending.CPU_TIME:
            advice = "use a simpler expression, or fewer files"
            return Result(Status.TIMED_OUT, f"stopped after {outcome.seconds:.0f} s: {advice}")
        if not outcome.ok:
            reason = outcome.stderr.strip() or outcome.ending.value
            bad = outcome.exit_code == search_worker.EXIT_BAD_PATTERN
            return Result(Status.FAILED, reason if bad else f"the search failed: {reason}")
        place = f"search {arguments.get('pattern', '')!r} in {arguments.get('files', '*')}"
        return Result(Status.OK, outcome.stdout.strip(), (Source.of(place, outcome.stdout),))
