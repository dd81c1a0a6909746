"""`python_executor`: run Python code in the sandbox and return what it prints."""

import ast
from dataclasses import replace
from typing import Any

from expertmesh.agent.tools.command_result import PYTHON, command_result
from expertmesh.agent.tools.in_sandbox import InSandbox
from expertmesh.agent.tools.tool import Effect, Result, Status, object_schema

_NOTHING = "(it printed nothing: use print() for what you want to see)"


class PythonExecutor(InSandbox):
    """Each call is a new process in the work folder; nothing is remembered between calls."""

    name = "python_executor"
    description = "Run Python code and return what it prints."
    parameters = object_schema({"code": {"type": "string", "minLength": 1}})
    effect = Effect.RUNS

    async def call(self, arguments: dict[str, Any]) -> Result:
        code = arguments["code"]
        outcome = await self._sandbox.run(
            [PYTHON, "-"],
            limits=self._limits,
            stdin=code.encode("utf-8", "surrogatepass"),
            on_output=self._on_output,
        )
        result = command_result(outcome, self._limits, f"python: {_first_line(code)}")
        if result.status is Status.OK and not outcome.stdout and _ends_with_a_value(code):
            return replace(result, text=_NOTHING, is_computed=True)
        return replace(result, is_computed=True)


def _ends_with_a_value(code: str) -> bool:
    """Whether the last statement computes something that a prompt would have shown."""
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return bool(body) and isinstance(body[-1], ast.Expr)


def _first_line(code: str) -> str:
    return next((line.strip() for line in code.splitlines() if line.strip()), "")[:80]
