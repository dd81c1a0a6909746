"""A layer's call survives what pools do to it: every pair is summed once, or the call fails aloud."""

import asyncio
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attention_svc import expert_call
from attention_svc.expert_call import CallContext, ExpertCall
from attention_svc.metrics import AttentionMetrics
from attention_svc.outcome import Answer, CallFailed, Outcome
from attention_svc.pool_health import PoolHealth, RetryBudget
from attention_svc.pool_set import PoolSet
from attention_svc.transport import ExpertsUnavailable, HopTerms, StepPoisoned
from protos import expert_pb2, router_pb2
from rpc.hop_codec import HopCodec, result_of
from rpc.pieces import Pieces
from rpc.tensor_codec import decode, encode

EXPERTS, TOP_K, D = 6, 3, 4
CODEC = HopCodec.best()


def expert(expert_id: int, row: np.ndarray) -> np.ndarray:
    """Any function that tells experts apart."""
    return row * (expert_id + 1) + expert_id**2


class ScriptedLink:
    """Answers rightly, unless `script` says otherwise for the next calls."""

    def __init__(self, pool_id: str, address: str, on_change: Callable[[], None]):
        self.pool_id, self.on_change = pool_id, on_change
        self.usable, self.generation = True, 1
        self.health = PoolHealth()
        self.numerics_id = "n"
        self.script: list[str] = []
        self.calls: list[expert_pb2.Execute] = []
        self.abandoned: set[int] = set()

    def start(self) -> None:
        self.health.answered(0.001, 0.0, 0.0005, 8)
        self.on_change()

    async def stop(self) -> None:
        self.usable = False

    @property
    def predicted_s(self) -> float:
        return self.health.predict_s(8)

    def back(self) -> None:
        self.usable, self.generation = True, self.generation + 1
        self.on_change()

    def abandon(self, call_id: int) -> None:
        self.abandoned.add(call_id)

    def execute(
        self, frame: bytes, call_id: int, num_rows: int, on_done: Callable[[Outcome], None]
    ) -> None:
        if not self.usable:
            on_done(CallFailed("unsent", "no stream"))
            return
        call = expert_pb2.ExecuteRequest.FromString(frame).execute
        self.calls.append(call)
        what = self.script.pop(0) if self.script else "answer"
        asyncio.get_running_loop().call_soon(self._do, what, call, on_done)

    def _do(self, what: str, call: expert_pb2.Execute, on_done: Callable[[Outcome], None]) -> None:
        if call.call_id in self.abandoned or what == "silent":
            return
        if what == "break":
            self.usable = False
            self.on_change()
            on_done(CallFailed("broken", "killed"))
        elif what == "not_holding":
            ids = np.frombuffer(call.expert_ids, "<i4")
            on_done(CallFailed("not_holding", "moved", (0, int(ids[0]))))
        elif what in ("refused", "draining", "error", "overloaded"):
            on_done(CallFailed(what, what))
        else:
            rows = self._sums(call)
            if what == "corrupt":
                rows[0, 0] = float("nan")
            elif what == "short":
                rows = rows[:, :-1].contiguous()
            result = expert_pb2.Result(call_id=call.call_id, rows=encode(rows))
            on_done(Answer(result_of(result), 0.001))

    def _sums(self, call: expert_pb2.Execute) -> torch.Tensor:
        hidden = decode(
            call.hidden, field="hidden", dtypes=(call.hidden.dtype,), shape=(-1, D)
        ).numpy()
        splits = np.frombuffer(call.row_splits, "<i4")
        ids, weights = np.frombuffer(call.expert_ids, "<i4"), np.frombuffer(call.weights, "<f4")
        sums = np.zeros((len(hidden), D), dtype=np.float32)
        for row in range(len(hidden)):
            for pair in range(splits[row], splits[row + 1]):
                sums[row] += weights[pair] * expert(int(ids[pair]), hidden[row])
        return torch.from_numpy(sums)


class World:
    """Pools a (everything), b (experts 0-2), c (3-5) or as told; one call at a time."""

    def __init__(self, **holdings: range):
        self.links: dict[str, ScriptedLink] = {}
        self.pools = PoolSet(1, EXPERTS, self._make)
        self.metrics = AttentionMetrics(1, EXPERTS)
        self.budget = RetryBudget()
        entries = [
            router_pb2.PoolEntry(
                pool_id=name, incarnation=1, address=name,
                pieces=Pieces.grid([0], held).to_message(),
            )
            for name, held in holdings.items()
        ]  # fmt: skip
        self.pools.apply(router_pb2.Topology(pools=entries))
        self.context = CallContext(self.pools, CODEC, self.metrics, self.budget, itertools.count(1))

    def _make(self, pool_id: str, address: str, on_change: Callable[[], None]) -> ScriptedLink:
        self.links[pool_id] = ScriptedLink(pool_id, address, on_change)
        return self.links[pool_id]

    def call(self, rows: int = 3, seed: int = 0, **terms: object) -> tuple[ExpertCall, np.ndarray]:
        """A started call, and what it must yield."""
        rng = np.random.default_rng(seed)
        hidden = rng.standard_normal((rows, D), dtype=np.float32)
        ids = np.sort(
            np.stack([rng.permutation(EXPERTS)[:TOP_K] for _ in range(rows)]), axis=1
        ).astype(np.int32)
        weights = rng.random((rows, TOP_K), dtype=np.float32)
        wanted = np.zeros((rows, D), dtype=np.float32)
        for row, pair in np.ndindex(rows, TOP_K):
            wanted[row] += weights[row, pair] * expert(int(ids[row, pair]), hidden[row])
        call = ExpertCall(
            self.context, HopTerms(**{"timeout_s": 5.0, **terms}), 0,  # type: ignore[arg-type]
            (torch.from_numpy(hidden), torch.from_numpy(ids), torch.from_numpy(weights)),
            is_decode=True,
        )  # fmt: skip
        call.start()
        return call, wanted

    def failures(self) -> dict[tuple[str, str], float]:
        (family,) = self.metrics.expert_failures.collect()
        return {
            (sample.labels["pool"], sample.labels["kind"]): sample.value
            for sample in family.samples
            if sample.name.endswith("_total")
        }

    def parked(self) -> float:
        return self.metrics.parked._value.get()


ALL, LOW, HIGH = range(EXPERTS), range(3), range(3, EXPERTS)


async def result(call: ExpertCall, wanted: np.ndarray) -> np.ndarray:
    out = torch.full(wanted.shape, 7.0)
    async with asyncio.timeout(10):
        await call.wait_into(out)
    return out.numpy()


async def check(world: World, **terms: object) -> None:
    call, wanted = world.call(**terms)
    np.testing.assert_allclose(await result(call, wanted), wanted, rtol=1e-5)
    assert world.parked() == 0


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
    monkeypatch.setattr("attention_svc.pool_health.MIN_TIMEOUT_S", 0.05)
    world = World(a=ALL, b=ALL)
    first = world.pools.layers[0].sole
    first.script = ["silent"]
    await check(world)
    assert world.failures() == {(first.pool_id, "timeout"): 1}
    assert first.abandoned == {1}
    await check(world)
    assert len(first.calls) == 1, "the next call does not wait for it again"


async def test_the_last_holder_is_waited_for_however_late(monkeypatch):
    monkeypatch.setattr("attention_svc.pool_health.MIN_TIMEOUT_S", 0.02)
    world = World(a=ALL)
    world.links["a"].script = ["silent"]
    call, wanted = world.call()
    waiting = asyncio.ensure_future(result(call, wanted))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    assert world.failures() == {}
    waiting.cancel()


async def test_without_a_holder_the_call_is_parked_and_goes_on_when_one_is_back():
    world = World(a=ALL)
    world.links["a"].script = ["break"]
    call, wanted = world.call()
    waiting = asyncio.ensure_future(result(call, wanted))
    await asyncio.sleep(0.1)
    assert (waiting.done(), world.parked()) == (False, 1)
    world.links["a"].back()
    np.testing.assert_allclose(await waiting, wanted, rtol=1e-5)
    assert world.parked() == 0


async def test_a_call_may_start_while_a_piece_has_no_holder():
    world = World(b=LOW)
    call, wanted = world.call(rows=6)
    waiting = asyncio.ensure_future(result(call, wanted))
    await asyncio.sleep(0.05)
    assert world.parked() == 1
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
    await asyncio.sleep(0.05)
    wants[0] = False
    with pytest.raises(ExpertsUnavailable, match="nobody waits"):
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


@settings(max_examples=60, deadline=None)
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
