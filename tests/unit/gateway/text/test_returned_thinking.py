"""Thinking that a client dropped is restored in its own tenant's turn, and in no other."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.text.returned_thinking import ReturnedThinking


def turn(*ids: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"id": i} for i in ids], **fields}


def test_a_turn_without_thinking_gets_its_own_back() -> None:
    thinking = ReturnedThinking(max_bytes=10_000)
    thinking.remember("t", "call_1", "first")
    thinking.remember("t", "call_2", "second")
    turns = [
        {"role": "user", "content": "x"},
        turn("call_2", "call_3"),
        turn("call_1", reasoning_content="own"),
        turn("call_1"),
        turn("call_9"),
        turn("call_3", "call_1"),
        turn(None),
        {"role": "assistant", "content": "y"},
    ]
    assert thinking.restore("t", turns) == 2
    assert [one.get("reasoning_content") for one in turns] == [
        None,
        "second",
        "own",
        "first",
        None,
        None,
        None,
        None,
    ]


def test_another_tenant_gets_nothing() -> None:
    thinking = ReturnedThinking(max_bytes=10_000)
    thinking.remember("t", "call_1", "secret")
    for tenant, call_id in (("", "call_1"), ("tc", "all_1"), ("u", "call_1")):
        turns = [turn(call_id)]
        assert thinking.restore(tenant, turns) == 0
        assert "reasoning_content" not in turns[0]


@given(
    told=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("123456"), st.text(max_size=99)))
)
def test_what_is_kept_is_bounded_and_the_latest(told: list[tuple[str, str, str]]) -> None:
    thinking = ReturnedThinking(max_bytes=2_000)
    for tenant, call_id, text in told:
        thinking.remember(tenant, call_id, text)
        assert 0 <= thinking.size_bytes <= 2_000
        turns = [turn(call_id)]
        thinking.restore(tenant, turns)
        if text:
            assert turns[0]["reasoning_content"] == text
    thinking.remember("a", "1", "x" * 3_000)
    assert thinking.size_bytes <= 2_000
