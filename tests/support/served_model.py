"""The model in the box, served by a whole mesh."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai

from moe_model.weights.checkpoint import Checkpoint
from tests.support.mesh import Mesh, ServiceProcess
from tests.support.places import DEMO_MODEL

PYTHON_TOOL = {
    "type": "function",
    "function": {
        "name": "python_executor",
        "description": "Runs Python code and returns what it prints",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string"}},
            "required": ["code"],
        },
    },
}
"""The one tool that the model has learnt to call."""


def stripes() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Layers of the demo model over two pools."""
    num_layers = Checkpoint.open(DEMO_MODEL).config.num_layers
    even = ",".join(str(layer) for layer in range(0, num_layers, 2))
    odd = ",".join(str(layer) for layer in range(1, num_layers, 2))
    return ("--layers", even), ("--layers", odd)


class Served:
    """A mesh with a gateway in front of it."""

    def __init__(self, mesh: Mesh, gateway: ServiceProcess):
        self.mesh = mesh
        self.url = f"http://{gateway.address}"
        self.client = openai.OpenAI(base_url=self.url + "/v1", api_key="none", max_retries=0)
        self.model = self.client.models.list().data[0].id

    def wait_ready(self, ready: bool, timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        wanted = 200 if ready else 503
        while httpx.get(self.url + "/readyz").status_code != wanted:
            assert time.monotonic() < deadline, f"/readyz did not become {wanted}"
            time.sleep(0.1)


def serve(state: Path, *gateway_flags: str) -> Iterator[Served]:
    with Mesh(DEMO_MODEL, stripes(), attention_flags=("--kv-memory", "64MiB"), state=state) as mesh:
        gateway = mesh.start(
            "gateway",
            "--model",
            str(DEMO_MODEL),
            "--router",
            mesh.router.address,
            "--listen",
            "127.0.0.1:0",
            *gateway_flags,
        ).wait_listening()
        served = Served(mesh, gateway)
        served.wait_ready(True)
        yield served
