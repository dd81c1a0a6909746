"""Whatever a model answers, a run ends in order, and its trace holds what the model saw."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.agent.loop.approval import Answer, Approve, Question
from expertmesh.agent.loop.loop import Ending
from expertmesh.agent.loop.turn import OnPiece
from expertmesh.agent.record.past import RecordedModel, differences, read_earlier, read_recorded
from expertmesh.agent.record.trace import read_trace
from expertmesh.agent.record.undo import undo
from expertmesh.agent.session import Session, Settings
from expertmesh.clients.chat import Reply
from expertmesh.clients.chat_stream import ChatError, LostError, RefusedError
from tests.support.examples import examples
from tests.support.expertmesh.plain_sandbox import PlainSandbox

MAX_STEPS = 6


class GivenAnswers:
    """A model whose answers are given, and which keeps what it was asked."""

    def __init__(self, answers: list[Reply | ChatError]):
        self.answers = list(answers)
        self.asked: list[list[dict[str, Any]]] = []

    async def ask(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], on_piece: OnPiece
    ) -> Reply:
        self.asked.append(json.loads(json.dumps(messages)))
        answer = self.answers.pop(0) if self.answers else Reply(content="x", finish_reason="stop")
        if isinstance(answer, ChatError):
            raise answer
        return answer


PATHS = st.sampled_from(["a.txt", "b.py", "../x", "@outputs/1.txt"])


def editor_arguments(action: str, path: str, text: str) -> str:
    more = {
        "write": {"content": text},
        "append": {"content": text},
        "edit": {"old_text": text, "new_text": "z"},
    }
    return json.dumps({"action": action, "file_path": path, **more.get(action, {})})


ARGUMENTS = st.one_of(
    st.sampled_from(["", "{", "[]", "null", '{"action": "read"}']),
    st.builds(
        editor_arguments,
        st.sampled_from(["read", "view", "write", "append", "edit"]),
        PATHS,
        st.text("ab\n", max_size=300),
    ),
)
CALLS = st.builds(
    lambda call_id, name, arguments: {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    },
    st.sampled_from(["", "c1", "c2"]),
    st.sampled_from(["file_editor", "update_plan", "nothing", ""]),
    ARGUMENTS,
)
REPLIES = st.builds(
    lambda content, reasoning, calls, reason, tokens: Reply(
        content=content,
        reasoning=reasoning,
        tool_calls=calls,
        finish_reason=reason,
        prompt_tokens=tokens,
        completion_tokens=tokens // 2,
    ),
    st.text("xy [1]", max_size=5),
    st.text("t", max_size=2),
    st.lists(CALLS, max_size=3),
    st.sampled_from(["stop", "tool_calls", "tool_calls", "length", None, "strange"]),
    st.integers(0, 900),
)
FAULTS = st.sampled_from(
    [
        LostError("gone"),
        ChatError("odd"),
        RefusedError("server", 400, "maximum context length"),
        RefusedError("server", 503, "away"),
    ]
)


def check_conversation(messages: list[dict[str, Any]]) -> None:
    """As servers want it: each call is answered once, before anybody else speaks."""
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] == waiting.pop(0)
            continue
        assert not waiting
        calls = message.get("tool_calls", [])
        waiting = [call["id"] for call in calls]
        for call in calls:
            assert isinstance(json.loads(call["function"]["arguments"]), dict)
    assert not waiting


async def run(top: Path, model: Any, answers: list[Answer] | None) -> tuple[Session, Ending | None]:
    async def ask(question: Question) -> Answer:
        assert answers is not None
        return answers.pop(0) if answers else Answer.YES

    (top / "work").mkdir(exist_ok=True)
    settings = Settings(
        work_dir=top / "work",
        max_steps=MAX_STEPS,
        tools=("file_editor", "update_plan"),
        approve=Approve.ASK,
        max_model_len=2000,
    )
    with Session(
        model,
        settings,
        state=top / "state",
        sandbox=PlainSandbox(top / "work"),
        ask=ask if answers is not None else None,
    ) as session:
        progress = await session.run("task")
        session.changes()
    return session, progress.ending


@examples(many=200)
@given(
    st.lists(st.one_of(REPLIES, REPLIES, FAULTS), max_size=MAX_STEPS),
    st.one_of(st.none(), st.lists(st.sampled_from(list(Answer)), max_size=6)),
)
def test_a_run_ends_in_order_and_its_conversations_are_whole(
    tmp_path_factory: pytest.TempPathFactory,
    answers: list[Reply | ChatError],
    user: list[Answer] | None,
) -> None:
    top = tmp_path_factory.mktemp("run")
    model = GivenAnswers(answers)
    session, ending = asyncio.run(run(top, model, user))
    assert ending is not None
    assert session.agent.progress.steps <= MAX_STEPS
    for asked in model.asked:
        check_conversation(asked)
    events = read_trace(session.folder.trace)
    assert [one["ending"] for one in events if one["event"] == "end"] == [ending.value]
    earlier = read_earlier(session.folder)
    check_conversation(earlier.messages)
    assert earlier.messages[: len(model.asked[-1])] == model.asked[-1]
    assert not (top / "x").exists()


@examples(many=100)
@given(st.lists(REPLIES, max_size=MAX_STEPS))
def test_a_run_is_undone_and_replays_to_the_same_results(
    tmp_path_factory: pytest.TempPathFactory, answers: list[Reply | ChatError]
) -> None:
    top = tmp_path_factory.mktemp("replay")
    first, ending = asyncio.run(run(top, GivenAnswers(answers), []))
    assert undo(first.folder).conflicts == []
    assert os.listdir(top / "work") == []
    recorded = read_recorded(first.folder)
    again, again_ending = asyncio.run(run(top, RecordedModel(recorded.answers), []))
    results = [one for one in read_trace(again.folder.trace) if one["event"] == "tool"]
    if '"malformed' not in json.dumps(recorded.answers):  # these are not kept as they came
        assert differences(recorded, results) == []
        assert again_ending is ending
