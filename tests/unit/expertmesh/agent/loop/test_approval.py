"""Which calls are asked about."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from expertmesh.agent.loop.approval import (
    Answer,
    Approval,
    Approve,
    Question,
    StoppedByUserError,
)
from expertmesh.agent.tools.tool import Effect, Result, Status


@dataclass
class Does:
    effect: Effect
    name: str = "tool"
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)

    async def call(self, arguments: dict[str, Any]) -> Result:
        return Result(Status.OK, "")


class User:
    """Answers as told, and remembers what it was asked."""

    def __init__(self, *answers: Answer):
        self.answers = list(answers)
        self.asked: list[Question] = []

    async def __call__(self, question: Question) -> Answer:
        self.asked.append(question)
        return self.answers.pop(0)


@pytest.mark.parametrize("after_web", [False, True])
@pytest.mark.parametrize("approve", list(Approve))
@pytest.mark.parametrize("effect", list(Effect))
async def test_what_is_asked_about(approve: Approve, effect: Effect, after_web: bool) -> None:
    user = User(Answer.NO)
    approval = Approval(approve, user)
    approval.web_was_read = after_web
    allowed = await approval.allows(Does(effect), {"x": 1})
    changes = effect in (Effect.WRITES, Effect.RUNS)
    asks = {
        Approve.ASK: changes,
        Approve.EDITS: effect is Effect.RUNS or (changes and after_web),
        Approve.ALL: changes and after_web,
    }[approve]
    assert (len(user.asked), allowed) == (int(asks), not asks)
    if asks:
        assert user.asked[0] == Question("tool", {"x": 1}, effect, after_web)


async def test_always_is_for_one_tool_and_does_not_last_beyond_a_page_from_the_web() -> None:
    user = User(Answer.ALWAYS, Answer.YES, Answer.YES)
    approval = Approval(Approve.ASK, user)
    for _ in range(3):
        assert await approval.allows(Does(Effect.RUNS), {})
    assert len(user.asked) == 1
    assert await approval.allows(Does(Effect.RUNS, "other"), {})
    assert len(user.asked) == 2
    approval.web_was_read = True
    assert await approval.allows(Does(Effect.RUNS), {})
    assert len(user.asked) == 3


async def test_trust_in_the_web_is_given_by_name_only() -> None:
    approval = Approval(Approve.ALL, None, trust_web=True)
    approval.web_was_read = True
    assert await approval.allows(Does(Effect.RUNS), {})


async def test_where_nobody_can_be_asked_the_run_ends_and_says_what_to_give() -> None:
    approval = Approval(Approve.ASK, None)
    assert await approval.allows(Does(Effect.READS), {})
    with pytest.raises(StoppedByUserError, match=r"it changes files.*--approve all"):
        await approval.allows(Does(Effect.WRITES), {})
    approval = Approval(Approve.ALL, None)
    approval.web_was_read = True
    with pytest.raises(StoppedByUserError, match=r"a page from the web.*--i-know"):
        await approval.allows(Does(Effect.RUNS), {})


async def test_stop_ends_the_run() -> None:
    with pytest.raises(StoppedByUserError, match="you ended the run"):
        await Approval(Approve.ASK, User(Answer.STOP)).allows(Does(Effect.RUNS), {})
