"""Thinking that a client dropped is restored in its own turn of its own conversation only."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.text.returned_thinking import Conversation, ReturnedThinking
from moe_model.chat.messages import answered_turn, normalise_messages

USER = {"role": "user", "content": "how warm is it?"}
SYSTEM = {"role": "system", "content": "s"}


def emitted(call_id: str = "call_1", arguments: str = '{"place": "Rome", "days": 3}') -> Any:
    return {"id": call_id, "name": "weather", "arguments": [arguments[:5], arguments[5:]]}


def returned(
    call_id: Any = "call_1",
    arguments: Any = '{"place": "Rome", "days": 3}',
    name: str = "weather",
    **fields: Any,
) -> dict[str, Any]:
    """An assistant's message with one call, as a client sends it back."""
    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": "", "tool_calls": [call], **fields}


def turns(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    return normalise_messages([copy.deepcopy(message) for message in messages])


@pytest.fixture
def thinking() -> ReturnedThinking:
    """One that knows what was thought before the call."""
    kept = ReturnedThinking(max_bytes=10_000)
    turn = answered_turn("", [emitted()])
    kept.remember("t", Conversation(turns(SYSTEM, USER)), turn, "so warm")
    return kept


RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "20"}


@pytest.mark.parametrize(
    "arguments",
    [
        '{"place": "Rome", "days": 3}',
        '{"days":3,"place":"Rome"}',
        {"place": "Rome", "days": 3},
    ],
)
def test_a_turn_without_thinking_gets_its_own_back(
    thinking: ReturnedThinking, arguments: Any
) -> None:
    history = turns(SYSTEM, USER, returned(arguments=arguments, content=None), RESULT)
    assert thinking.restore("t", history) == 1
    assert history[2]["reasoning_content"] == "so warm"


@pytest.mark.parametrize(
    "message",
    [
        returned(call_id="call_2"),
        returned(call_id=None),
        returned(name="other"),
        returned(arguments='{"place": "Oslo", "days": 3}'),
        returned(content="I look."),
        returned(tool_calls=[*returned()["tool_calls"], *returned("call_2")["tool_calls"]]),
        {"role": "assistant", "content": "so"},
    ],
)
def test_an_edited_turn_gets_nothing(thinking: ReturnedThinking, message: dict[str, Any]) -> None:
    history = turns(SYSTEM, USER, message, RESULT)
    assert thinking.restore("t", history) == 0
    assert "reasoning_content" not in history[2]


def test_a_turn_of_another_conversation_or_scope_gets_nothing(thinking: ReturnedThinking) -> None:
    assert thinking.restore("t", turns(USER, returned(), RESULT)) == 0
    other = {"role": "user", "content": "how cold is it?"}
    assert thinking.restore("t", turns(SYSTEM, other, returned(), RESULT)) == 0
    for scope in ("", "u", "t\0"):
        assert thinking.restore(scope, turns(SYSTEM, USER, returned(), RESULT)) == 0


def test_thinking_that_came_back_stays_and_changes_no_later_turn(
    thinking: ReturnedThinking,
) -> None:
    first = turns(SYSTEM, USER, returned(reasoning_content="own"), RESULT)
    assert thinking.restore("t", first) == 0
    assert first[2]["reasoning_content"] == "own"
    second = answered_turn("more", [emitted("call_2")])
    thinking.remember("t", Conversation(first), second, "then")
    history = turns(SYSTEM, USER, returned(), RESULT, returned("call_2", content="more"))
    assert thinking.restore("t", history) == 2
    assert [turn.get("reasoning_content") for turn in history] == [
        None,
        None,
        "so warm",
        None,
        "then",
    ]


@given(
    told=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("123456"), st.text(max_size=99)))
)
def test_what_is_kept_is_bounded_and_the_latest(told: list[tuple[str, str, str]]) -> None:
    thinking = ReturnedThinking(max_bytes=2_000)
    for scope, call_id, text in told:
        thinking.remember(
            scope, Conversation(turns(USER)), answered_turn("", [emitted(call_id)]), text
        )
        assert 0 <= thinking.size_bytes <= 2_000
        history = turns(USER, returned(call_id))
        thinking.restore(scope, history)
        if text:
            assert history[1]["reasoning_content"] == text
    thinking.remember("a", Conversation(), answered_turn("", [emitted()]), "x" * 3_000)
    assert thinking.size_bytes <= 2_000
