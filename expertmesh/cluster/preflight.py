"""What is checked before the first process starts? A free port and enough memory."""

from expertmesh.cluster.machine import port_problem
from expertmesh.cluster.spec import ClusterPlan
from expertmesh.console import CommandError
from rpc.process.sizes import format_bytes


def check_port(port: int) -> None:
    """Raises CommandError if the port cannot be bound."""
    problem = port_problem(port)
    if problem is not None:
        raise CommandError(
            f"--http-port {port}: cannot bind 127.0.0.1:{port} ({problem}); stop what uses it "
            "(`expertmesh status` shows a running cluster) or choose another --http-port"
        )


def check_memory(plan: ClusterPlan, available_bytes: int) -> None:
    """Raises CommandError, with the needs of each process, if the plan exceeds free memory."""
    if plan.memory_bytes <= available_bytes:
        return
    lines = "\n".join(f"  {line}" for line in plan.memory_lines)
    raise CommandError(
        f"the cluster needs {format_bytes(plan.memory_bytes)} of memory, but only "
        f"{format_bytes(available_bytes)} are free:\n{lines}\n"
        "use --dtype bf16, smaller formats (--expert-dtype, --linear-dtype), a smaller "
        "--kv-memory, a smaller model, or several machines (docs/several-machines.md)"
    )
