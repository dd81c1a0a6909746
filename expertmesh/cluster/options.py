"""What can `up` be asked for, and how are its services called?"""

from dataclasses import dataclass, field
from pathlib import Path

from expertmesh.cluster.service_flags import Values


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """What `up` was asked for."""

    model: Path
    http_port: int = 8000
    num_pools: int = 2
    num_attention: int = 1
    """Attention services, each with weights and a KV cache of its own."""
    replicas: int = 0
    """Holders of each piece, placed by the router; 0: pool i of N holds the layers l mod N = i."""
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


def pool_names(options: ClusterOptions) -> list[str]:
    """None where attention services hold the experts."""
    return [] if options.in_process else [f"pool-{index}" for index in range(options.num_pools)]


def stripe(num_layers: int, num_pools: int, pool: int) -> tuple[int, ...]:
    """The layers of one pool."""
    return tuple(range(pool, num_layers, num_pools))
