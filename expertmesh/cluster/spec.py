"""Which data describe the services of the local cluster?"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class ServiceSpec:
    """One process: `python -m module flags...`, started when all lower stages are ready."""

    name: str
    """Unique in the cluster; also the name of its log file."""
    module: str
    stage: int
    flags: tuple[str, ...] = ()
    dials: tuple[tuple[str, str], ...] = ()
    """(flag, service name): the flag gets the gRPC address that the service has bound."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Extra variables: flags with secrets, which do not belong on a command line."""
    threads: int = 1
    """OMP_NUM_THREADS of the process."""
    group: str = ""
    """Services of one group can replace each other, so the cluster survives the death of one.
    Empty: no other can replace this one."""
    memory_bytes: int = 0
    """Most anonymous memory that the process is expected to use."""


@dataclass(frozen=True, kw_only=True)
class ClusterPlan:
    """Everything that `up` will start, decided before the first process."""

    model: str
    """The checkpoint's folder."""
    description: str
    """One line about the model, for people."""
    services: tuple[ServiceSpec, ...] = field(default=())
    memory_lines: tuple[str, ...] = ()
    """Memory needs, one line per process, for people."""
    stop_grace_s: float = 10.0
    """Time that each stage gets between SIGTERM and SIGKILL."""

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
