"""Two attention services behind a gateway, one of which tests disturb."""

from collections.abc import Sequence
from pathlib import Path

import httpx

from tests.support.chaos.http_streams import http_sender
from tests.support.chaos.rig import ALL, START_S, Rig
from tests.support.chaos.streams import Load, until
from tests.support.mesh import ServiceProcess
from tests.support.moe_model.demo_like import write_demo_like_checkpoint


class GatewayRig(Rig):
    """A Rig whose load goes through a gateway. `second` is the attention service to disturb."""

    def __init__(
        self,
        folder: Path,
        pools: Sequence[Sequence[str]] = (ALL,),
        *flags: str,
        attentions: int = 2,
        pool_module: str = "expert_svc",
    ):
        """`flags`: of both attention services."""
        write_demo_like_checkpoint(folder / "model")
        super().__init__(folder, pools, *flags, pool_module=pool_module)
        self._attentions = attentions

    def __enter__(self) -> "GatewayRig":
        super().__enter__()
        try:
            if self._attentions > 1:
                self.start_second()
            self.start_gateway()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start_gateway(self, *flags: str) -> None:
        self.gateway = self.mesh.start(
            "gateway",
            "--model",
            str(self.model),
            "--served-model-name",
            "chaos",
            "--listen",
            "127.0.0.1:0",
            "--router",
            self.mesh.router.address,
            *flags,
        ).wait_listening()
        self.url = f"http://{self.gateway.address}"
        self.gateway_sees(self._attentions)

    def start_second(self) -> None:
        self.second: ServiceProcess = self.mesh.start_attention()
        self.second.wait_listening()
        self.second.wait_for(r"attention ready$")

    def load(self, num_streams: int) -> Load:
        return Load(self.url, self.asks, num_streams, send=http_sender(self.url))

    def gateway_sees(self, count: int) -> None:
        """Wait until the gateway has this many ready attention services."""
        until(
            lambda: self.gateway_metric("expertmesh_attention_replicas_ready") == count,
            START_S,
            0.1,
        )

    def gateway_metric(self, name: str) -> float:
        lines = httpx.get(f"{self.url}/metrics", timeout=10, trust_env=False).text.splitlines()
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.partition("{")[0].partition(" ")[0] == name
        )
