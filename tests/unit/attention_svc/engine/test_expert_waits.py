"""Whatever happens in any order, a sequence's wait is the time since its last token."""

import asyncio
import itertools
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention_svc.engine import expert_waits
from attention_svc.engine.expert_waits import FIRST_TRY_SHARE, ExpertWaits
from attention_svc.sequence.sequence import Sequence
from tests.support.attention_svc.sequences import sequence as make_sequence

LIMIT_S = 100.0
FIRST_TRY_S = LIMIT_S * FIRST_TRY_SHARE

ACTIONS = st.one_of(
    st.tuples(st.just("begin"), st.none()),
    st.tuples(st.just("end"), st.none()),
    st.tuples(st.just("pass"), st.floats(0, 40)),
    st.tuples(st.just("enter"), st.sampled_from([0.0, 0.0, 30.0, 99.0, 1e18])),
    st.tuples(st.just("served"), st.integers(0, 9)),
)


@dataclass
class Model:
    """The same by simple sums."""

    now_s: float = 0.0
    waiting: bool = False
    waited_s: dict[int, float] = field(default_factory=dict)
    """By arrival; of those that have not ended."""

    def let_pass(self, seconds: float) -> None:
        self.now_s += seconds
        for arrival in self.waited_s if self.waiting else ():
            self.waited_s[arrival] += seconds


@given(actions=st.lists(ACTIONS, max_size=40))
def test_each_sequence_ends_by_its_own_time(actions: list[tuple[str, float]]) -> None:
    async def scenario() -> None:
        model = Model()
        held: list[Sequence] = []
        arrivals = itertools.count()
        waits = ExpertWaits(LIMIT_S, lambda: held, held.remove)
        for action, value in actions:
            if action == "begin" and not model.waiting:
                model.waiting = True
                waits.begin()
            elif action == "end" and model.waiting:
                model.waiting = False
                waits.end()
            elif action == "pass":
                clock.now_s += value
                model.let_pass(value)
            elif action == "enter":
                sequence = make_sequence()
                sequence.arrival = next(arrivals)
                sequence.waited_elsewhere_s = value
                held.append(sequence)
                waits.enter(sequence)
                model.waited_s[sequence.arrival] = min(value, LIMIT_S - FIRST_TRY_S)
                assert waits.left_s(sequence) >= FIRST_TRY_S - 1e-6
            elif action == "served" and held:
                served = held[int(value) % len(held)]
                waits.served(served)
                model.waited_s[served.arrival] = 0.0
            for one in held:
                assert waits.waited_s(one) == pytest.approx(model.waited_s[one.arrival], abs=1e-6)
            if model.waiting:
                waits._look()  # as the timer would
                out = {a for a, s in model.waited_s.items() if s >= LIMIT_S + 1e-6}
                assert not out & {one.arrival for one in held}
            kept = {one.arrival for one in held}
            for arrival, waited_s in list(model.waited_s.items()):
                if arrival not in kept:
                    assert waited_s >= LIMIT_S - 1e-6, "nobody is ended before its time"
                    del model.waited_s[arrival]
        assert waits.awaited_s == 0.0 or model.waiting
        if model.waiting:
            waits.end()
        assert waits._timer is None

    clock = SimpleNamespace(now_s=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expert_waits, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
        asyncio.run(scenario())


async def test_a_steps_calls_may_wait_as_long_as_its_most_patient_sequence() -> None:
    fresh, moved, gone = make_sequence(), make_sequence(), make_sequence()
    moved.waited_elsewhere_s, gone.finished = 2 * LIMIT_S, True
    waits = ExpertWaits(LIMIT_S, lambda: [fresh, moved], lambda sequence: None)
    for sequence in (fresh, moved):
        waits.enter(sequence)
    for step, wanted_s in (
        ([fresh, moved], LIMIT_S),
        ([moved, gone], FIRST_TRY_S),
        ([gone], 0.0),
    ):
        patience = waits.of_step(step)
        assert patience.begin() == pytest.approx(wanted_s, abs=1.0)
        patience.end()
