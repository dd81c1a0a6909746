"""Decode first, callers in turn, and no prefill call waits for ever."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expert_svc.executor import PREFILL_PATIENCE_S, CallQueue


def pushed(queue: CallQueue, caller: str, item: object, *, decode: bool, at: float = 0.0) -> None:
    queue.push(caller, SimpleNamespace(is_decode=decode, received_s=at), item)


def test_decode_goes_before_prefill_until_prefill_has_waited_long():
    queue = CallQueue()
    pushed(queue, "a", "prefill", decode=False)
    pushed(queue, "a", "decode 1", decode=True)
    pushed(queue, "a", "decode 2", decode=True)
    assert queue.pop(0.01) == "decode 1"
    assert queue.pop(PREFILL_PATIENCE_S + 0.01) == "prefill"
    assert queue.pop(PREFILL_PATIENCE_S + 0.01) == "decode 2"
    with pytest.raises(IndexError):
        queue.pop(1.0)


def test_a_backlog_of_old_prefills_does_not_starve_decode():
    queue = CallQueue()
    for index in range(4):
        pushed(queue, "long", f"p{index}", decode=False)
    for index in range(3):
        pushed(queue, "short", f"d{index}", decode=True)
    order = [queue.pop(1000.0) for _ in range(7)]
    assert order == ["p0", "d0", "p1", "d1", "p2", "d2", "p3"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40))
def test_every_call_comes_out_once_each_callers_in_order(calls: list[tuple[str, bool]]):
    queue = CallQueue()
    for index, (caller, decode) in enumerate(calls):
        pushed(queue, caller, (caller, decode, index), decode=decode)
    out = [queue.pop(0.0) for _ in range(len(queue))]
    assert sorted(out, key=lambda item: item[2]) == [(c, d, i) for i, (c, d) in enumerate(calls)]
    assert [d for _, d, _ in out] == sorted((d for _, d, _ in out), reverse=True)
    for caller in "abc":
        for decode in (True, False):
            mine = [i for c, d, i in out if (c, d) == (caller, decode)]
            assert mine == sorted(mine)


@given(st.integers(1, 8), st.integers(1, 8))
def test_a_caller_with_many_calls_does_not_hold_up_one_with_few(many: int, few: int):
    queue = CallQueue()
    for index in range(many):
        pushed(queue, "greedy", ("greedy", index), decode=True)
    for index in range(few):
        pushed(queue, "modest", ("modest", index), decode=True)
    out = [queue.pop(0.0)[0] for _ in range(many + few)]
    both = out[: 2 * min(many, few)]
    assert both.count("modest") == both.count("greedy")
