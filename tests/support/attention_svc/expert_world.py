"""Scripted pools for calls of one layer."""

import asyncio
import itertools
from collections.abc import Callable

import numpy as np
import torch

from attention_svc.experts.call import ExpertCall
from attention_svc.experts.call_outcome import CallAnswered, CallFailed, CallOutcome
from attention_svc.experts.call_parts import CallContext
from attention_svc.experts.health import PoolHealth, RetryBudget
from attention_svc.experts.pools import PoolSet
from attention_svc.experts.transport import HopTerms
from attention_svc.metrics import AttentionMetrics
from protos import expert_pb2, router_pb2
from rpc.hop.codec import HopCodec, result_of
from rpc.hop.tensor_codec import decode, encode
from rpc.mesh.pieces import Pieces

EXPERTS, TOP_K, D = 6, 3, 4
CODEC = HopCodec.best()


def expert(expert_id: int, row: np.ndarray) -> np.ndarray:
    """Any function that tells experts apart."""
    return row * (expert_id + 1) + expert_id**2


class ScriptedLink:
    """Answers rightly, unless `script` says otherwise for the next calls."""

    def __init__(self, pool_id: str, address: str, on_change: Callable[[], None]):
        self.pool_id, self.on_change = pool_id, on_change
        self.usable, self.generation, self.incarnation = True, 1, 1
        self.world: World
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
        self, frame: bytes, call_id: int, num_rows: int, on_done: Callable[[CallOutcome], None]
    ) -> None:
        if not self.usable:
            on_done(CallFailed("unsent", "no stream"))
            return
        call = expert_pb2.ExecuteRequest.FromString(frame).execute
        self.calls.append(call)
        what = self.script.pop(0) if self.script else "answer"
        if what == "unsent":
            on_done(CallFailed(what, "no credit left"))
            return
        asyncio.get_running_loop().call_soon(self._do, what, call, on_done)

    def _do(
        self, what: str, call: expert_pb2.Execute, on_done: Callable[[CallOutcome], None]
    ) -> None:
        if call.call_id in self.abandoned or what == "silent":
            return
        if what in ("break", "die"):
            self.usable = False
            self.on_change()
            on_done(CallFailed("broken", "killed"))
            self.incarnation += what == "die"  # of whatever comes back
        elif what == "not_holding":
            ids = np.frombuffer(call.expert_ids, "<i4")
            on_done(CallFailed("not_holding", "moved", (0, int(ids[0]))))
        elif what in ("refused", "draining", "error", "overloaded"):
            on_done(CallFailed(what, what))
        else:
            rows = self._sums(call)
            if not self._finite(call):
                on_done(CallFailed("refused", "hidden holds NaN or infinity"))
                return
            if what == "corrupt":
                rows[0, 0] = float("nan")
            elif what == "short":
                rows = rows[:, :-1].contiguous()
            result = expert_pb2.Result(call_id=call.call_id, rows=encode(rows))
            on_done(CallAnswered(result_of(result), 0.001))

    def _finite(self, call: expert_pb2.Execute) -> bool:
        return bool(np.isfinite(np.frombuffer(call.hidden.data, "<f4")).all())

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


class Patience:
    """The waits of one step's calls, added up."""

    def __init__(self, left_s: float):
        self.left_s = left_s

    def begin(self) -> float:
        self._began_s = asyncio.get_running_loop().time()
        return self.left_s

    def end(self) -> None:
        self.left_s -= asyncio.get_running_loop().time() - self._began_s


class World:
    """Pools a (everything), b (experts 0-2), c (3-5) or as told; one call at a time."""

    def __init__(self, **holdings: range):
        self.links: dict[str, ScriptedLink] = {}
        self.pools = PoolSet(1, EXPERTS, self._make)
        self.metrics = AttentionMetrics()
        self.budget = RetryBudget()
        entries = [
            router_pb2.PoolEntry(
                pool_id=name,
                incarnation=1,
                address=name,
                pieces=Pieces.grid([0], held).to_message(),
            )
            for name, held in holdings.items()
        ]
        self.pools.apply(router_pb2.Topology(pools=entries))
        self.context = CallContext(self.pools, CODEC, self.metrics, self.budget, itertools.count(1))

    def _make(self, pool_id: str, address: str, on_change: Callable[[], None]) -> ScriptedLink:
        self.links[pool_id] = ScriptedLink(pool_id, address, on_change)
        self.links[pool_id].world = self
        return self.links[pool_id]

    def call(
        self, rows: int = 3, seed: int = 0, *, start: bool = True, **terms: object
    ) -> tuple[ExpertCall, np.ndarray]:
        """A call, and what it must yield."""
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
            self.context,
            HopTerms(**{"timeout_s": 5.0, **terms}),
            0,
            (torch.from_numpy(hidden), torch.from_numpy(ids), torch.from_numpy(weights)),
            is_decode=True,
        )
        if start:
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


async def until_parked(world: World) -> None:
    """Until a call waits for a holder of its pieces."""
    async with asyncio.timeout(10):
        while world.parked() != 1:
            await asyncio.sleep(0.005)


async def result(call: ExpertCall, wanted: np.ndarray) -> np.ndarray:
    out = torch.full(wanted.shape, 7.0)
    async with asyncio.timeout(10):
        await call.wait_into(out)
    return out.numpy()


async def check(world: World, **terms: object) -> None:
    call, wanted = world.call(**terms)
    np.testing.assert_allclose(await result(call, wanted), wanted, rtol=1e-5)
    assert world.parked() == 0
