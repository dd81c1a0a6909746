"""A layer's call survives failing pools: every pair is summed once, or the call fails."""

import asyncio
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attention_svc.experts import call as expert_call
from attention_svc.experts.call_parts import CallContext
from attention_svc.experts.health import RetryBudget
from attention_svc.experts.outages import Outage
from attention_svc.experts.transport import ExpertsUnavailable, StepPoisoned
from protos import router_pb2
from rpc.mesh.pieces import Pieces
from tests.support.attention_svc.expert_world import (
    ALL,
    CODEC,
    HIGH,
    LOW,
    Patience,
    ScriptedLink,
    World,
    check,
    result,
    until_parked,
)
from tests.support.examples import examples


@pytest.mark.parametrize(
    "what", ["break", "corrupt", "short", "error", "draining", "overloaded", "not_holding"]
)
async def test_a_failed_call_goes_to_the_replica_at_once(what: str):
    world = World(a=ALL, b=ALL)
    first = world.pools.layers[0].sole
    assert first is not None
    first.script = [what]
    await check(world)
    kind = {"break": "broken", "short": "corrupt"}.get(what, what)
    assert world.failures() == {(first.pool_id, kind): 1}
    assert sorted(len(link.calls) for link in world.links.values()) == [1, 1]


async def test_a_part_that_no_single_pool_can_take_falls_into_several():
    world = World(a=ALL, b=LOW, c=HIGH)
    world.links["a"].script = ["break"]
    await check(world, rows=6)
    assert [len(world.links[name].calls) for name in "abc"] == [1, 1, 1]


async def test_a_corrupt_answer_leaves_no_trace_in_the_sums():
    world = World(a=ALL, b=LOW, c=HIGH)
    world.links["a"].script = ["corrupt"]
    await check(world, rows=6)


async def test_a_late_call_moves_and_its_late_answer_is_ignored(monkeypatch):
    monkeypatch.setattr("attention_svc.experts.health.MIN_TIMEOUT_S", 0.05)
    world = World(a=ALL, b=ALL)
    first = world.pools.layers[0].sole
    first.script = ["silent"]
    await check(world)
    assert world.failures() == {(first.pool_id, "timeout"): 1}
    assert first.abandoned == {1}
    await check(world)
    assert len(first.calls) == 1, "the next call does not wait for it again"


async def test_the_last_holder_is_waited_for_while_its_pings_may_tell(monkeypatch):
    monkeypatch.setattr("attention_svc.experts.health.MIN_TIMEOUT_S", 0.02)
    world = World(a=ALL)
    world.links["a"].script = ["silent"]
    call, wanted = world.call(timeout_s=0.05)
    waiting = asyncio.ensure_future(result(call, wanted))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    assert world.failures() == {}
    assert not world.context.outages.waiting
    waiting.cancel()


async def test_nobody_waits_for_a_late_holder_when_nobody_wants_its_answer(monkeypatch):
    monkeypatch.setattr("attention_svc.experts.health.MIN_TIMEOUT_S", 0.02)
    world = World(a=ALL)
    world.links["a"].script = ["silent"]
    call, wanted = world.call(wanted=lambda: False)
    with pytest.raises(ExpertsUnavailable, match="no sequence of the step is left"):
        await result(call, wanted)


async def test_without_a_holder_the_call_is_parked_and_goes_on_when_one_is_back():
    world = World(a=ALL)
    world.links["a"].script = ["break"]
    call, wanted = world.call()
    waiting = asyncio.ensure_future(result(call, wanted))
    await until_parked(world)
    assert not waiting.done()
    world.links["a"].back()
    np.testing.assert_allclose(await waiting, wanted, rtol=1e-5)
    assert world.parked() == 0


async def test_a_call_may_start_while_a_piece_has_no_holder():
    world = World(b=LOW)
    call, wanted = world.call(rows=6)
    waiting = asyncio.ensure_future(result(call, wanted))
    await until_parked(world)
    entries = [
        router_pb2.PoolEntry(
            pool_id=name, incarnation=1, address=name, pieces=Pieces.grid([0], held).to_message()
        )
        for name, held in {"b": LOW, "c": HIGH}.items()
    ]
    world.pools.apply(router_pb2.Topology(pools=entries))
    np.testing.assert_allclose(await waiting, wanted, rtol=1e-5)


async def test_a_parked_call_ends_when_time_is_up_or_nobody_wants_it():
    world = World(a=ALL)
    world.links["a"].script = ["break"]
    call, wanted = world.call(timeout_s=0.05)
    with pytest.raises(ExpertsUnavailable, match="no pool for layer 0, experts"):
        await result(call, wanted)
    world.links["a"].back()
    world.links["a"].script = ["break"]
    wants = [True]
    call, wanted = world.call(wanted=lambda: wants[0])
    waiting = asyncio.ensure_future(result(call, wanted))
    await until_parked(world)
    wants[0] = False
    with pytest.raises(ExpertsUnavailable, match="no sequence of the step is left"):
        await waiting
    assert world.parked() == 0


async def test_a_message_that_breaks_two_pools_is_not_sent_to_a_third():
    world = World(a=ALL, b=ALL, c=ALL)
    for link in world.links.values():
        link.script = ["break"]
    call, wanted = world.call()
    with pytest.raises(StepPoisoned, match="killed"):
        await result(call, wanted)
    assert sum(len(link.calls) for link in world.links.values()) == 2


async def test_a_message_that_is_refused_is_not_sent_elsewhere():
    world = World(a=ALL, b=ALL)
    for link in world.links.values():
        link.script = ["refused"]
    call, wanted = world.call()
    with pytest.raises(StepPoisoned, match="refused"):
        await result(call, wanted)
    assert sum(len(link.calls) for link in world.links.values()) == 1


async def test_failures_of_its_own_eject_a_pool_and_the_others_serve():
    world = World(a=ALL, b=ALL)
    first = world.pools.layers[0].sole
    for _ in range(3):
        first.script = ["error"]
        await check(world)
    assert first.health.ejected
    assert world.pools.layers[0].sole is not first
    calls = len(first.calls)
    await check(world)
    assert len(first.calls) == calls


async def test_an_exhausted_retry_budget_slows_down_and_loses_nothing(monkeypatch):
    monkeypatch.setattr(expert_call, "RETRY_PAUSE_S", 0.005)
    world = World(a=ALL, b=ALL)
    world.budget = RetryBudget(per_second=50, most=1)
    world.context = CallContext(world.pools, CODEC, world.metrics, world.budget, itertools.count(1))
    for link in world.links.values():
        link.script = ["overloaded"] * 3
    await check(world)


ENDLESS = ["corrupt", "short", "error", "draining", "overloaded", "not_holding", "unsent"]


@pytest.mark.parametrize("what", [*ENDLESS, "silent", "flapping", "returning"])
async def test_a_sole_holder_that_never_answers_soundly_ends_the_call_in_time(
    what: str, monkeypatch
):
    """Whatever happens meanwhile, the time limit runs from the first failure."""
    monkeypatch.setattr("attention_svc.experts.health.MIN_TIMEOUT_S", 0.02)
    monkeypatch.setattr(expert_call, "SILENCE_LIMIT_S", 0.05)
    world = World(a=ALL)
    link = world.links["a"]
    link.script = {
        "flapping": ENDLESS * 200,
        "returning": ["break"] * 1000,
    }.get(what, [what] * 1000)
    coming_back = asyncio.ensure_future(returning(link, hold=what in ("flapping", "not_holding")))
    started_s = asyncio.get_running_loop().time()  # the call's own time begins with it
    call, wanted = world.call(timeout_s=0.3)
    with pytest.raises(ExpertsUnavailable, match=r"no pool for layer 0, experts .* in 0.3 s"):
        await result(call, wanted)
    coming_back.cancel()
    assert asyncio.get_running_loop().time() - started_s >= 0.3
    assert world.parked() == 0
    assert world.context.outages.by_layer() == {
        0: sorted({int(i) for i in np.unique(call._rows[1])})
    }


async def returning(link: ScriptedLink, *, hold: bool) -> None:
    """As soon as it is gone it is back, holding the same pieces."""
    while True:
        await asyncio.sleep(0.01)
        if not link.usable:
            link.back()
        if hold:
            entry = router_pb2.PoolEntry(
                pool_id="a", incarnation=1, address="a", pieces=Pieces.grid([0], ALL).to_message()
            )
            link.world.pools.apply(router_pb2.Topology(pools=[entry]))


async def test_the_next_step_does_not_wait_for_the_same_pieces_again():
    """Otherwise requests that need a lost piece would wait again in every step."""
    world = World(a=ALL)
    world.links["a"].script = ["corrupt"] * 1000
    call, wanted = world.call(timeout_s=0.2)
    with pytest.raises(ExpertsUnavailable):
        await result(call, wanted)
    sent = len(world.links["a"].calls)
    call, wanted = world.call(timeout_s=1000.0)
    world.context.outages.open = {
        piece: Outage(outage.since_s - 1000.0, outage.why)
        for piece, outage in world.context.outages.open.items()
    }
    with pytest.raises(ExpertsUnavailable, match=r" in 0 s: "):
        await result(call, wanted)
    assert 1 <= len(world.links["a"].calls) - sent <= 3, "tried, but not waited for"
    world.links["a"].script = []
    await check(world)
    assert not world.context.outages.open, "a sound answer ends it"


async def test_what_a_step_waits_for_its_layers_is_counted_together():
    world = World(a=ALL)
    patience = Patience(0.3)
    world.links["a"].script = ["overloaded"] * 5
    await check(world, timeout_s=0.3, patience=patience)
    assert 0 < patience.left_s < 0.3
    patience.left_s = 0.05
    world.links["a"].script = ["overloaded"] * 1000
    call, wanted = world.call(timeout_s=1000.0, patience=patience)
    with pytest.raises(ExpertsUnavailable, match=r" in 0.05 s: "):
        await result(call, wanted)
    assert patience.left_s <= 0


async def test_a_link_that_breaks_is_no_evidence_against_the_rows_while_its_process_lives():
    world = World(a=ALL)
    link = world.links["a"]
    link.script = ["break"] * 3
    coming_back = asyncio.ensure_future(returning(link, hold=False))
    await check(world)
    coming_back.cancel()


async def test_processes_that_die_under_a_message_are_evidence_against_it():
    world = World(a=ALL)
    link = world.links["a"]
    link.script = ["die"] * 3
    coming_back = asyncio.ensure_future(returning(link, hold=False))
    call, wanted = world.call()
    with pytest.raises(StepPoisoned):
        await result(call, wanted)
    coming_back.cancel()
    assert len(link.calls) == 2


async def test_an_abandoned_call_leaves_no_timer_behind(monkeypatch):
    monkeypatch.setattr("attention_svc.experts.health.MIN_TIMEOUT_S", 0.01)
    world = World(a=ALL)
    world.links["a"].script = ["silent"]
    call, _ = world.call()
    call.abandon()
    await asyncio.sleep(0.05)
    assert all(part.timer is None or part.timer.cancelled() for part in call._parts)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["hidden", "weights"])
async def test_a_row_that_is_not_finite_comes_back_as_nan_and_the_others_as_they_are(
    where: str, bad: float
):
    for holdings in ({"a": ALL}, {"b": LOW, "c": HIGH}):
        world = World(**holdings)
        call, wanted = world.call(rows=4, start=False)
        call._rows[0 if where == "hidden" else 2][1, 0] = bad
        call.start()
        sums = await result(call, wanted)
        assert np.isnan(sums[1]).all()
        np.testing.assert_allclose(sums[[0, 2, 3]], wanted[[0, 2, 3]], rtol=1e-5)
        assert world.failures().keys() <= {(name, "refused") for name in "abc"}


async def test_bad_rows_that_no_pool_held_at_first_are_set_apart_later():
    world = World(b=LOW)
    world.links["b"].usable = False
    world.links["b"].on_change()
    call, wanted = world.call(rows=2, start=False)
    call._rows[1][:] = torch.arange(3, dtype=torch.int32)
    call._rows[2][0] = float("nan")
    call.start()
    waiting = asyncio.ensure_future(result(call, wanted))
    await until_parked(world)
    world.links["b"].back()
    sums = await waiting
    assert (np.isnan(sums[0]).all(), np.isfinite(sums[1]).all()) == (True, True)


@examples(60)
@given(data=st.data())
def test_whatever_pools_do_every_pair_is_summed_once(data: st.DataObject):
    """As long as every expert keeps a pool that answers in the end."""

    async def scenario() -> None:
        holdings = data.draw(
            st.sampled_from(
                [
                    {"a": ALL, "b": ALL, "c": ALL},
                    {"a": ALL, "b": LOW, "c": HIGH},
                    {"a": LOW, "b": HIGH, "c": ALL},
                    {"a": range(4), "b": range(2, 6), "c": ALL},
                ]
            )
        )
        world = World(**holdings)
        faults = ["answer", "corrupt", "short", "error", "draining", "overloaded"]
        if holdings["c"] == ALL:  # else two pools could both deny the same piece
            faults.append("not_holding")
        for name in "ab":
            world.links[name].script = data.draw(st.lists(st.sampled_from(faults), max_size=3))
        for round_idx in range(3):
            call, wanted = world.call(
                rows=data.draw(st.integers(1, 9)), seed=data.draw(st.integers(0, 99))
            )
            np.testing.assert_allclose(
                await result(call, wanted), wanted, rtol=1e-5, atol=1e-5, err_msg=str(round_idx)
            )

    asyncio.run(scenario())


@examples(60)
@given(data=st.data())
def test_whatever_pools_go_on_doing_every_call_ends_in_time_and_leaves_nothing(data: st.DataObject):
    """It ends right, unavailable or suspect, in time, and is no longer counted as waiting."""

    async def scenario() -> None:
        holdings = data.draw(
            st.sampled_from(
                [{"a": ALL}, {"a": ALL, "b": ALL}, {"b": LOW, "c": HIGH}, {"a": ALL, "b": LOW}]
            )
        )
        world = World(**holdings)
        kinds = st.sampled_from([*ENDLESS, "answer", "break", "die", "silent", "refused"])
        for link in world.links.values():
            link.script = data.draw(st.lists(kinds, min_size=1, max_size=4)) * 200
        coming_back = [
            asyncio.ensure_future(returning(link, hold=False)) for link in world.links.values()
        ]
        patience = Patience(0.08)
        for seed in range(2):
            call, wanted = world.call(seed=seed, timeout_s=0.04, patience=patience)
            try:
                sums = await result(call, wanted)
            except (ExpertsUnavailable, StepPoisoned):
                pass
            else:
                np.testing.assert_allclose(sums, wanted, rtol=1e-5, atol=1e-5)
        for task in coming_back:
            task.cancel()
        assert (world.parked(), world.context.outages.waiting) == (0, 0)
        await asyncio.sleep(0)
        assert all(
            part.timer is None or part.timer.cancelled() or part.timer.when() < call._loop.time()
            for part in call._parts
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attention_svc.experts.health.MIN_TIMEOUT_S", 0.01)
        patch.setattr(expert_call, "RETRY_PAUSE_S", 0.002)
        patch.setattr(expert_call, "SILENCE_LIMIT_S", 0.02)
        asyncio.run(scenario())
