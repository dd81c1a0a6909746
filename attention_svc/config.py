"""What can be set about an attention service?"""

from dataclasses import dataclass
from pathlib import Path

from rpc.config import Address
from rpc.flags import flag
from rpc.server import check_exposure
from rpc.sizes import parse_bytes
from rpc.tls import TlsFiles, tls_files

DTYPES = ("auto", "float32", "bfloat16")
LOG_LEVELS = ("debug", "info", "warning", "error")
TRANSPORTS = ("grpc", "in_process")
BLOCK_SIZE = 16
"""Positions per KV block."""


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """Flags of `python -m attention_svc`; see `--help`."""

    model: Path = flag(Path("."), "checkpoint folder")
    attention_id: str = flag("", "unique name of this service (default: attention-<port>)")
    listen: str = flag("127.0.0.1:50051", "address to serve gRPC on", metavar="HOST:PORT")
    advertise: str = flag("", "address gateways dial (default: --listen)", metavar="HOST:PORT")
    ops_listen: str = flag(
        "127.0.0.1:50061", "HTTP address of /metrics, /livez, /readyz", metavar="HOST:PORT"
    )
    router: str = flag("", "router to join and to watch for pools", metavar="HOST:PORT")
    transport: str = flag("grpc", "grpc: remote pools; in_process: all experts in this process")
    dtype: str = flag("auto", f"compute dtype: {', '.join(DTYPES)}")
    device: str = flag("cpu", "torch device of attention, for example cpu or cuda")
    kv_memory: str = flag("512MiB", "memory of the KV cache")
    max_model_len: int = flag(0, "longest sequence in tokens (0: the model's)")
    max_running: int = flag(64, "most sequences in one step")
    max_waiting: int = flag(256, "most sequences waiting; more are refused")
    max_waiting_tokens: int = flag(2_000_000, "most prompt tokens waiting; more are refused")
    max_batch_tokens: int = flag(512, "most rows in one step; longer prompts are cut into chunks")
    request_timeout_s: float = flag(600.0, "deadline of requests that name none")
    expert_timeout_s: float = flag(10.0, "longest wait for one expert call")
    threads: int = flag(0, "compute threads (0: all cores)")
    grace_s: float = flag(30.0, "seconds running requests get after SIGTERM")
    tls_ca: Path | None = flag(None, "PEM of the mesh's CA; turns mTLS on", metavar="FILE")
    tls_cert: Path | None = flag(None, "PEM certificate of role attention", metavar="FILE")
    tls_key: Path | None = flag(None, "PEM private key of that certificate", metavar="FILE")
    insecure: bool = flag(False, "allow plaintext gRPC beyond loopback")
    log_level: str = flag("info", "debug, info, warning or error")

    def __post_init__(self) -> None:
        check_exposure(self.listen_address, tls=self.tls, insecure=self.insecure)
        Address.parse(self.ops_listen, "--ops-listen")
        for name in ("advertise", "router"):
            if getattr(self, name):
                Address.parse(getattr(self, name), f"--{name}")
        if self.log_level not in LOG_LEVELS:
            raise ValueError(
                f"--log-level must be one of {', '.join(LOG_LEVELS)}, got {self.log_level!r}"
            )
        if self.dtype not in DTYPES:
            raise ValueError(f"--dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.transport not in TRANSPORTS:
            raise ValueError(
                f"--transport must be one of {', '.join(TRANSPORTS)}, got {self.transport!r}"
            )
        if self.transport == "grpc" and not self.router:
            raise ValueError("--router is needed with --transport grpc: it knows the expert pools")
        for name in ("max_running", "max_waiting", "max_waiting_tokens", "max_batch_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1")
        for name in ("request_timeout_s", "expert_timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"--{name.replace('_', '-')} must be more than 0")
        if self.threads < 0 or self.max_model_len < 0 or not self.grace_s >= 0:
            raise ValueError("--threads, --max-model-len and --grace-s must not be negative")
        if self.kv_memory_bytes < 1:
            raise ValueError("--kv-memory must be more than 0")

    @property
    def listen_address(self) -> Address:
        return Address.parse(self.listen, "--listen")

    @property
    def kv_memory_bytes(self) -> int:
        return parse_bytes(self.kv_memory, "--kv-memory") or 0

    @property
    def tls(self) -> TlsFiles | None:
        return tls_files(self.tls_ca, self.tls_cert, self.tls_key)
