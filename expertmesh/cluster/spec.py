"""What is a service of the local cluster, as plain data?"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class ServiceSpec:
    """One process: `python -m module flags...`, started after all lower stages are ready."""

    name: str
    """Unique in the cluster; also the name of its log file."""
    module: str
    stage: int
    flags: tuple[str, ...] = ()
    dials: tuple[tuple[str, str], ...] = ()
    """(flag, service name): the flag gets the gRPC address which that service has bound."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Besides ours: flags with secrets, which do not belong on a command line."""
    threads: int = 1
    """OMP_NUM_THREADS of the process."""
    group: str = ""
    """Services of one group stand in for each other: the cluster outlives the death of one. Empty:
    nobody stands in for this one."""
    memory_bytes: int = 0
    """What the process is expected to hold at most (anonymous memory)."""


@dataclass(frozen=True, kw_only=True)
class ClusterPlan:
    """Everything `up` is about to start, decided before the first process."""

    model: str
    """The checkpoint's folder."""
    description: str
    """One line about the model for people."""
    services: tuple[ServiceSpec, ...] = field(default=())
    memory_lines: tuple[str, ...] = ()
    """The memory arithmetic, one line a process, for people."""
    stop_grace_s: float = 10.0
    """What each stage gets between SIGTERM and SIGKILL."""

    @property
    def memory_bytes(self) -> int:
        return sum(service.memory_bytes for service in self.services)

    @property
    def stages(self) -> tuple[tuple[ServiceSpec, ...], ...]:
        """Services by stage, in the order they start."""
        numbers = sorted({service.stage for service in self.services})
        return tuple(
            tuple(service for service in self.services if service.stage == number)
            for number in numbers
        )
