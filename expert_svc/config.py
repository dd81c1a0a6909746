"""Which flags does an expert pool take?"""

from dataclasses import dataclass
from pathlib import Path

from moe_model.formats import CHOICES, DTYPE_CHOICES, read_flags
from moe_model.gpus import DEVICE_HELP, GPU_MEMORY_HELP, check_flags
from moe_model.weights.load_flag import LOAD_HELP, parse_load
from rpc.process.flags import flag
from rpc.process.service_config import MemberConfig
from rpc.process.sizes import parse_bytes


@dataclass(frozen=True, kw_only=True)
class ExpertConfig(MemberConfig):
    """Flags of `python -m expert_svc`; see `--help`."""

    model: Path = flag(Path("."), "checkpoint folder; only the assigned pieces are read")
    load: str = flag("", LOAD_HELP, metavar="random:SEED")
    pool_id: str = flag("", "unique name of this pool (default: expert-<host name>-<port>)")
    listen: str = flag("127.0.0.1:50052", "address to serve gRPC on", metavar="HOST:PORT")
    ops_listen: str = flag(
        "127.0.0.1:50062", "HTTP address of /metrics, /livez, /readyz", metavar="HOST:PORT"
    )
    router: str = flag(
        "", "router to join; empty: serve the requested pieces alone", metavar="HOST:PORT"
    )
    layers: str = flag("", "layers to hold, for example 0-30,45 (default: the router decides)")
    experts: str = flag("", "experts of these layers to hold, for example 0-127 (default: all)")
    memory: str = flag("", "most memory for weights, for example 48GiB (default: no limit)")
    experts_per_s: float = flag(
        0.0,
        "activated experts that the pool computes per second, for one row; the router gives load"
        " accordingly (0: measured at the start)",
    )
    dtype: str = flag("auto", f"compute dtype, the attention services': {', '.join(DTYPE_CHOICES)}")
    expert_dtype: str = flag(
        "auto", f"weights as held: {', '.join(CHOICES)} (auto: the compute dtype)"
    )
    device: str = flag("auto", DEVICE_HELP)
    gpu_memory: float = flag(0.9, GPU_MEMORY_HELP)
    threads: int = flag(0, "threads of the kernels and of torch (0: all cores)")
    canary_s: float = flag(
        600.0,
        "seconds in which every held expert is tried once with a fixed row; the pool ends if an"
        " answer has changed (0: try only experts whose answers are not finite)",
    )
    grace_s: float = flag(10.0, "seconds running calls get after SIGTERM")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in read_flags(self).items():
            object.__setattr__(self, name, value)
        parse_load(self.load)
        if self.threads < 0:
            raise ValueError(f"--threads must be at least 0, got {self.threads}")
        if not (self.experts_per_s == 0 or 1e-3 <= self.experts_per_s <= 1e9):
            raise ValueError(
                f"--experts-per-s: allowed are 0 and 0.001 to 1e9, got {self.experts_per_s}"
            )
        if not (self.canary_s == 0 or 1 <= self.canary_s <= 1e6):
            raise ValueError(f"--canary-s: allowed are 0 and 1 to 1e6, got {self.canary_s}")
        parse_bytes(self.memory, "--memory")
        check_flags(self.device, self.gpu_memory)

    @property
    def memory_bytes(self) -> int | None:
        """The weight budget, or None."""
        return parse_bytes(self.memory, "--memory")
