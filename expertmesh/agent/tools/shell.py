"""`shell`: run a command line in the sandbox."""

import shutil
from dataclasses import replace
from typing import Any

from expertmesh.agent.tools.command_result import command_result
from expertmesh.agent.tools.in_sandbox import InSandbox
from expertmesh.agent.tools.tool import Effect, Result, Status, object_schema

MAX_TIMEOUT_S = 600


def shell_argv(command: str) -> list[str]:
    """bash where there is one: models write for it."""
    return ["bash" if shutil.which("bash", path="/bin:/usr/bin") else "sh", "-c", command]


class Shell(InSandbox):
    """Each call is a new shell in the work folder."""

    name = "shell"
    description = (
        "Run a shell command in the work folder and return its output. There is no network, only "
        "the work folder and /tmp are writable, and each call starts a new shell."
    )
    parameters = object_schema(
        {"command": {"type": "string", "minLength": 1}},
        {
            "timeout_s": {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_TIMEOUT_S,
                "description": "Seconds until it is stopped; 30 if not given.",
            },
            "folder": {"type": "string", "description": "Where to run it, in the work folder."},
        },
    )
    effect = Effect.RUNS

    async def call(self, arguments: dict[str, Any]) -> Result:
        wall_s = float(arguments.get("timeout_s", self._limits.wall_s))
        limits = replace(self._limits, wall_s=wall_s, cpu_s=max(wall_s, self._limits.cpu_s))
        command = arguments["command"]
        try:
            outcome = await self._sandbox.run(
                shell_argv(command),
                limits=limits,
                folder=arguments.get("folder", "."),
                on_output=self._on_output,
            )
        except ValueError as error:
            return Result(Status.FAILED, str(error))
        return command_result(outcome, limits, f"$ {command}")
