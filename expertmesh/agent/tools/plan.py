"""`update_plan`: the model writes down its steps, for itself and for whoever watches."""

from collections.abc import Callable
from typing import Any

from expertmesh.agent.tools.tool import Effect, Result, Status, object_schema

STATES = ("pending", "in_progress", "done")
Plan = list[tuple[str, str]]
"""(state, step) of each step."""


class UpdatePlan:
    """Planning is a tool and no phase: a model that thinks between its calls plans anyway."""

    name = "update_plan"
    description = (
        "Write down or update the steps of a task that needs several. Give all steps each time; at "
        "most one is in_progress."
    )
    parameters = object_schema(
        {
            "steps": {
                "type": "array",
                "minItems": 1,
                "maxItems": 30,
                "items": object_schema(
                    {
                        "step": {"type": "string", "minLength": 1},
                        "status": {"type": "string", "enum": list(STATES)},
                    }
                ),
            }
        }
    )
    effect = Effect.READS

    def __init__(self, on_plan: Callable[[Plan], None] = lambda plan: None):
        self._on_plan = on_plan

    async def call(self, arguments: dict[str, Any]) -> Result:
        plan = [(one["status"], one["step"]) for one in arguments["steps"]]
        states = [state for state, _ in plan]
        if states.count("in_progress") > 1:
            return Result(Status.FAILED, "at most one step can be in_progress")
        self._on_plan(plan)
        return Result(Status.OK, f"noted: {states.count('done')} of {len(plan)} steps are done")
