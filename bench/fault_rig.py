"""The mesh and the load that bench/faults.py disturbs, and what it measures of a disturbance."""

import math
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from minimax_m2.tiny import write_tiny
from tests.chaos.history import Ask, Verdict
from tests.chaos.proxy import FaultProxy
from tests.chaos.streams import Load, Oracle, Request, until
from tests.integration.mesh import Mesh, ServiceProcess

STREAMS = 8
TOKENS = 100
CONTROL_S = 2.0
"""How long a trial runs before its fault, to know what is normal."""
START_S = 60.0
LAYERS = 4
LOWER, UPPER = ("--layers", "0-1"), ("--layers", "2-3")
STRIPES_TWICE = (LOWER, LOWER, UPPER, UPPER)
"""Layer-striped, two replicas of each stripe."""
STRIPES_ONCE = (LOWER, UPPER)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass
class Sample:
    """One trial."""

    verdict: Verdict
    pauses_ms: list[float]
    gap_p99_ms: float  # fault-free, of the same run
    control_pause_ms: float  # the fault-free part's own longest gap beyond that
    after_p99_ms: float  # gaps, once it has settled
    rate_ratio: float  # tokens/s then / before
    gaps_ms: list[list[float]]  # of each stream, from the fault on
    extra: dict[str, Any] = field(default_factory=dict)


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank; NaN of nothing."""
    if not values:
        return math.nan
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


class Rig:
    """A mesh on a tiny float32 model, its oracle, and the pools by name."""

    def __init__(self, folder: Path, pools: Sequence[Sequence[str]], *flags: str):
        """`pools`: flags of each pool; they are called p0, p1, ... `flags`: attention's."""
        self.model = folder / "model"
        if not self.model.exists():
            # A context of 4,096, so that prompts of several chunks fit.
            write_tiny(self.model, seed=41, num_hidden_layers=LAYERS, max_position_embeddings=4096)
        named = [(*flags, "--pool-id", f"p{number}") for number, flags in enumerate(pools)]
        self._flags = [*pools]
        flags = ("--kv-memory", "64MiB", *flags)
        self.mesh = Mesh(self.model, named, attention_flags=flags, state=folder / "epoch")
        self.oracle = Oracle(self.model)
        self.proxies: list[FaultProxy] = []
        self.num_streams = STREAMS
        self.asks = [
            Ask(prompt=tuple(range(5 + 9 * number, 15 + 9 * number)), max_tokens=TOKENS, seed=number,
                temperature=float(number % 2))
            for number in range(STREAMS)
        ]  # fmt: skip

    def __enter__(self) -> "Rig":
        self.mesh.__enter__()
        self.pools: list[ServiceProcess] = [*self.mesh.pools]
        try:
            self.connected(len(self.pools))
            self.learn(self.asks)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.mesh.__exit__()
        for proxy in self.proxies:
            proxy.__exit__()

    # ---- the pools ----

    def start_pool(self, number: int, *flags: str, module: str = "expert_svc") -> ServiceProcess:
        """Pool p<number>, anew; `flags` by default those it had. Returns when it listens."""
        flags = flags or tuple(self._flags[number])
        pool = self.mesh.start_pool(*flags, "--pool-id", f"p{number}", module=module)
        pool.wait_listening()
        if number < len(self.pools):
            self.pools[number] = pool
        else:
            self.pools.append(pool)
            self._flags.append(flags)
        return pool

    def start_behind_proxy(self, number: int) -> FaultProxy:
        """Replace a pool by one that attention reaches through a proxy."""
        self.pools[number].stop()
        proxy = FaultProxy(seed=number)
        proxy.__enter__()
        self.proxies.append(proxy)
        pool = self.start_pool(number, *self._flags[number], "--advertise", proxy.address)
        proxy.target = pool.address
        self.connected(len(self.pools))
        self.until_used(number)
        return proxy

    def connected(self, count: int, within_s: float = START_S) -> None:
        """Wait until attention has a stream to so many pools."""
        until(lambda: self.metric("expertmesh_pools_connected") == count, within_s, 0.05)

    def until_used(self, number: int, within_s: float = START_S) -> float:
        """Send requests until the pool answers calls; the seconds that took."""
        before = self.calls(number)
        with Load(self.mesh.attention.address, self.asks, 1):
            return until(lambda: self.calls(number) > before, within_s, 0.02)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of attention's samples of this name with these labels."""
        url = f"http://{self.mesh.attention.ops_address}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def calls(self, number: int) -> float:
        """Calls that the pool has answered to attention."""
        return self.metric("expertmesh_expert_rpc_seconds_count", pool=f"p{number}", part="compute")

    def failures(self, **labels: str) -> float:
        return self.metric("expertmesh_expert_call_failures_total", **labels)

    # ---- requests ----

    def learn(self, asks: Sequence[Ask]) -> None:
        """What sampled requests yield when nothing disturbs them."""
        for ask in asks:
            if ask.temperature:
                self.oracle.learn(Request(self.mesh.attention.address, ask).wait(START_S))

    def trial(
        self,
        fault: Callable[[], Any],
        *,
        after_s: float = 3.0,
        settle_s: float = 1.0,
        extra: dict[str, Any] | None = None,
    ) -> Sample:
        """Load, a quiet time, the fault, and `after_s` from the moment it has been done."""
        with Load(self.mesh.attention.address, self.asks, self.num_streams) as load:
            load.warm()
            begin_s = time.monotonic()
            time.sleep(CONTROL_S)
            fault_s = time.monotonic()
            fault()
            done_s = time.monotonic()
            time.sleep(after_s)
            end_s = time.monotonic()
        settled_s = min(done_s + settle_s, end_s - 0.5)
        control = [gap for gaps in self._gaps(load, begin_s, fault_s) for gap in gaps]
        normal_ms = percentile(control, 0.99)
        gaps_ms = list(self._gaps(load, fault_s, end_s))
        after = [gap for gaps in self._gaps(load, settled_s, end_s) for gap in gaps]
        return Sample(
            verdict=self.oracle.check(load.histories),
            pauses_ms=[max(0.0, max(gaps, default=0.0) - normal_ms) for gaps in gaps_ms],
            gap_p99_ms=normal_ms,
            control_pause_ms=max(control) - normal_ms,
            after_p99_ms=percentile(after, 0.99),
            rate_ratio=self._rate(load, settled_s, end_s) / self._rate(load, begin_s, fault_s),
            gaps_ms=gaps_ms,
            extra=extra or {},
        )

    @staticmethod
    def _gaps(load: Load, begin_s: float, end_s: float) -> Iterator[list[float]]:
        """Per stream: the gaps in ms that ended in this time. A request's first one is its TTFT."""
        for stream in load.streams:
            yield [
                1e3 * (end - start)
                for history in stream
                for start, end in history.gaps()
                if begin_s <= end < end_s
            ]

    @staticmethod
    def _rate(load: Load, begin_s: float, end_s: float) -> float:
        num_tokens = sum(
            len(tokens)
            for history in load.histories
            for arrived_s, _, tokens in history.events
            if begin_s <= arrived_s < end_s
        )
        return num_tokens / (end_s - begin_s)


@contextmanager
def work_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="expertmesh-faults-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
