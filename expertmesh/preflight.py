"""What must hold before the first process starts? A free port, enough memory."""

import socket

from expertmesh.console import CommandError
from expertmesh.sizes import format_bytes
from expertmesh.spec import ClusterPlan


def check_port(port: int, host: str = "127.0.0.1") -> None:
    """Refuse a port that something listens on. Raises CommandError."""
    if port == 0:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port in TIME_WAIT is free, a listening one is not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"--http-port {port}: cannot bind {host}:{port} ({error.strerror}); stop what uses it "
                "(`expertmesh status` knows our own cluster) or choose another --http-port"
            ) from None


def check_memory(plan: ClusterPlan, available_bytes: int) -> None:
    """Refuse a plan that does not fit the free memory. Raises CommandError with the arithmetic."""
    if plan.memory_bytes <= available_bytes:
        return
    lines = "\n".join(f"  {line}" for line in plan.memory_lines)
    raise CommandError(
        f"the cluster needs {format_bytes(plan.memory_bytes)} but only "
        f"{format_bytes(available_bytes)} of memory are free:\n{lines}\n"
        "use --dtype bfloat16, a smaller --kv-memory, a smaller model, or several machines "
        "(docs/several-machines.md)"
    )
