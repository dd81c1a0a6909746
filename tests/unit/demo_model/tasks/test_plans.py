"""Plans are written when the user asks for one, and are what `update_plan` takes."""

import random

from demo_model.draw import Draw
from demo_model.tasks import repair
from expertmesh.agent.tools.plan import UpdatePlan


async def test_a_plan_begins_and_ends_a_repair_that_was_asked_for_one() -> None:
    rng = random.Random(0)
    seen = 0
    for number in range(400):
        made = repair.make(Draw(rng=rng, language=("en", "zh")[number % 2]))
        calls = [m["tool_calls"][0]["function"] for m in made.messages if m.get("tool_calls")]
        plans = [call["arguments"] for call in calls if call["name"] == "update_plan"]
        asked = next(m["content"] for m in made.messages if m["role"] == "user")
        assert bool(plans) == asked.endswith(("Plan first.", "先列计划。"))
        if not plans:
            continue
        seen += 1
        told = [m["content"] for m in made.messages if m["role"] == "tool"]
        for arguments, result in ((plans[0], told[0]), (plans[1], told[-1])):
            assert (await UpdatePlan().call(arguments)).text == result
    assert seen > 3
