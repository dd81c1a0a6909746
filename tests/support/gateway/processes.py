"""Gateways and attention services as processes of their own."""

from tests.support.mesh import PORTS, ServiceProcess
from tests.support.places import DEMO_MODEL


def start_attention(processes: list[ServiceProcess], *flags: str) -> ServiceProcess:
    attention = ServiceProcess(
        "attention_svc",
        [
            *PORTS,
            "--model",
            str(DEMO_MODEL),
            "--transport",
            "in_process",
            "--dtype",
            "f32",
            "--threads",
            "1",
            "--kv-memory",
            "16MiB",
            *flags,
        ],
    )
    processes.append(attention)
    return attention.wait_listening()


def start_gateway(processes: list[ServiceProcess], *flags: str) -> ServiceProcess:
    gateway = ServiceProcess(
        "gateway",
        [
            "--model",
            str(DEMO_MODEL),
            "--served-model-name",
            "demo",
            *(() if "--listen" in flags else ("--listen", "127.0.0.1:0")),
            *flags,
        ],
    )
    processes.append(gateway)
    return gateway


def url(gateway: ServiceProcess, path: str) -> str:
    return f"http://{gateway.address}{path}"
