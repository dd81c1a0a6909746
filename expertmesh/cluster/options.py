"""What can `up` be asked for, and how are its services called?"""

from dataclasses import dataclass, field
from pathlib import Path

from expertmesh.cluster.service_flags import Values


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """What `up` was asked for."""

    model: Path
    http_port: int = 8000
    num_pools: int | None = None
    """None: as the GPUs decide; without them DEFAULT_POOLS (layout.py)."""
    pool_layers: tuple[str, ...] = ()
    """The layers of each pool, as `expertmesh serve expert --layers` takes them."""
    num_attention: int = 1
    """Attention services, each with weights and a KV cache of its own."""
    replicas: int = 0
    """Holders of each piece, placed by the router; 0: each pool is told its layers."""
    in_process: bool = False
    dtype: str = "auto"
    expert_dtype: str = "auto"
    linear_dtype: str = "auto"
    kv_memory: str = "auto"
    threads: int | None = None
    log_level: str = "info"
    model_name: str | None = None
    """Name in the API without --served-model-name; None: the folder's name."""
    secret_file: Path | None = None
    """File with the secret that the services show each other; written before they start."""
    response_store: Path | None = None
    """Where the gateway keeps answers without --response-store; None: nowhere."""
    passed: Values = field(default_factory=dict, repr=False)
    """Flags to pass on to the services."""


def attention_names(options: ClusterOptions) -> list[str]:
    """A single one is `attention`; several are numbered."""
    if options.num_attention == 1:
        return ["attention"]
    return [f"attention-{index}" for index in range(options.num_attention)]
