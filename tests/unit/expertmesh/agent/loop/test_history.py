"""How full the context is, and what is left out of it."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from expertmesh.agent.loop.history import History
from tests.support.examples import examples


def turn(history: History, number: int, size: int) -> None:
    history.add({"role": "assistant", "content": f"turn {number}"})
    result = {"role": "tool", "tool_call_id": str(number), "content": f"{number}" * size}
    history.add(result, f"[note {number}]")


def contents(history: History) -> list[Any]:
    return [one["content"][:9] for one in history.messages]


@examples(many=100)
@given(st.lists(st.integers(0, 3000), max_size=8), st.integers(100, 4000), st.booleans())
def test_only_older_results_change_and_messages_stay(
    sizes: list[int], limit: int, hard: bool
) -> None:
    history = History(limit)
    history.add({"role": "user", "content": "task"})
    for number, size in enumerate(sizes):
        turn(history, number, size)
    before = list(history.messages)
    replaced = {one.index for one in history.compact(hard=hard)}
    for index, (old, new) in enumerate(zip(before, history.messages, strict=True)):
        if index in replaced:
            assert old["role"] == "tool"
            assert {**old, "content": new["content"]} == new
            assert new["content"].startswith("[note ")
            assert len(new["content"]) < len(old["content"])
        else:
            assert new == old
    if not hard and sizes:
        assert len(before) - 1 not in replaced


def test_the_last_two_turns_stay_if_that_makes_room() -> None:
    history = History(2000)
    for number in range(5):
        turn(history, number, 1000)
    history.compact()
    assert contents(history)[1::2] == ["[note 0]", "[note 1]", "[note 2]", "333333333", "444444444"]


def test_the_last_but_one_goes_if_not() -> None:
    history = History(700)
    for number in range(3):
        turn(history, number, 1000)
    history.compact()
    assert contents(history)[1::2] == ["[note 0]", "[note 1]", "222222222"]
    assert history.compact() == []
    assert [one.text for one in history.compact(hard=True)] == ["[note 2]"]


def test_it_estimates_at_the_rate_that_the_server_counted() -> None:
    history = History(1000)
    history.add({"role": "user", "content": "x" * 2960})
    history.add({"role": "assistant", "content": "y" * 2955})
    history.counted(900, 100)
    assert history.estimated_tokens() == 1000
    history.add({"role": "user", "content": "x" * 2960})
    assert 1480 < history.estimated_tokens() < 1520
    assert history.is_full()


def test_it_is_never_full_where_the_length_is_not_known() -> None:
    history = History(None)
    history.add({"role": "user", "content": "x" * 10**6})
    assert not history.is_full()
