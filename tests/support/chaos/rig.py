"""A mesh to disturb: real processes on a tiny float32 model, its pools by number, its oracle."""

import contextlib
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from moe_model.tiny import write_tiny
from protos import router_pb2, router_pb2_grpc
from rpc.channel import open_sync_channel
from tests.support.chaos.history import Ask
from tests.support.chaos.proxy import FaultProxy
from tests.support.chaos.streams import Load, Oracle, Request, until
from tests.support.mesh import Mesh, ServiceProcess

TOKENS = 100
START_S = 60.0
LAYERS = 4
ALL, LOWER, UPPER = ("--layers", "0-3"), ("--layers", "0-1"), ("--layers", "2-3")


class Rig:
    """A mesh on a tiny float32 model, its oracle, and the pools by name."""

    def __init__(
        self,
        folder: Path,
        pools: Sequence[Sequence[str]],
        *flags: str,
        pool_module: str = "expert_svc",
        router_flags: Sequence[str] = (),
    ):
        """`pools`: flags of each pool; they are called p0, p1, ... `flags`: attention's."""
        self.model = folder / "model"
        if not self.model.exists():
            # A context of 4,096, so that prompts of several chunks fit.
            write_tiny(self.model, seed=41, num_hidden_layers=LAYERS, max_position_embeddings=4096)
        named = [(*flags, "--pool-id", f"p{number}") for number, flags in enumerate(pools)]
        self._flags = [*pools]
        flags = ("--kv-memory", "64MiB", *flags)
        self.mesh = Mesh(
            self.model,
            named,
            attention_flags=flags,
            state=folder / "epoch",
            pool_module=pool_module,
            router_flags=router_flags,
        )
        self.oracle = Oracle(self.model)
        self.proxies: list[FaultProxy] = []
        self.asks = [
            Ask(
                prompt=tuple(range(5 + 9 * number, 15 + 9 * number)),
                max_tokens=TOKENS,
                seed=number,
                temperature=float(number % 2),
            )
            for number in range(8)
        ]

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
        with contextlib.ExitStack() as stack:
            for proxy in self.proxies:
                stack.callback(proxy.__exit__)
            self.mesh.__exit__()

    # ---- the pools ----

    def start_pool(self, number: int, *flags: str, module: str = "") -> ServiceProcess:
        """Start pool p<number> (again), by default with its old flags; returns when it listens."""
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
        """Wait until attention has a stream to this many pools."""
        until(lambda: self.metric("expertmesh_pools_connected") == count, within_s, 0.05)

    def until_used(self, number: int, within_s: float = START_S) -> float:
        """Send requests until the pool answers calls; the seconds that took."""
        before = self.calls(number)
        with Load(self.mesh.attention.address, self.asks, 1):
            return until(lambda: self.calls(number) > before, within_s, 0.02)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of attention's samples of this name with these labels."""
        return metric(self.mesh.attention, name, **labels)

    def router_metric(self, name: str, **labels: str) -> float:
        return metric(self.mesh.router, name, **labels)

    def unready_reason(self, member_id: str) -> str:
        """Why the router does not count a member as ready."""
        with open_sync_channel(self.mesh.router.address, tls=None, server_role="router") as channel:
            stub = router_pb2_grpc.RouterStub(channel)
            answer = stub.GetTopology(router_pb2.GetTopologyRequest(), timeout=10)
        return "".join(m.unready_reason for m in answer.members if m.member_id == member_id)

    def calls(self, number: int) -> float:
        """Calls that the pool has answered to attention."""
        return self.calls_of(f"p{number}")

    def calls_of(self, pool_id: str) -> float:
        return self.metric("expertmesh_expert_rpc_seconds_count", pool=pool_id, part="compute")

    def rows_computed(self) -> float:
        """Rows of all of attention's finished steps."""
        return self.metric("expertmesh_step_rows_sum")

    def failures(self, **labels: str) -> float:
        return self.metric("expertmesh_expert_call_failures_total", **labels)

    def ejections(self, **labels: str) -> float:
        return self.metric("expertmesh_pool_ejections_total", **labels)

    # ---- requests ----

    def load(self, num_streams: int) -> Load:
        """A load of this many clients."""
        return Load(self.mesh.attention.address, self.asks, num_streams)

    def learn(self, asks: Sequence[Ask]) -> None:
        """Learn what sampled requests yield when nothing disturbs them."""
        for ask in asks:
            if ask.temperature:
                self.oracle.learn(Request(self.mesh.attention.address, ask).wait(START_S))


def metric(service: ServiceProcess, name: str, **labels: str) -> float:
    """The sum of a service's samples of this name with these labels."""
    with urllib.request.urlopen(f"http://{service.ops_address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
