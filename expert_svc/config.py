"""What can be set about an expert pool?"""

from dataclasses import dataclass
from pathlib import Path

from rpc.config import Address
from rpc.flags import flag
from rpc.server import check_exposure
from rpc.sizes import parse_bytes
from rpc.tls import TlsFiles, tls_files

DTYPES = ("auto", "float32", "bfloat16")
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """Flags of `python -m expert_svc`; see `--help`."""

    model: Path = flag(Path("."), "checkpoint folder; only the assigned pieces are read")
    pool_id: str = flag("", "unique name of this pool (default: expert-<port>)")
    listen: str = flag("127.0.0.1:50052", "address to serve gRPC on", metavar="HOST:PORT")
    advertise: str = flag(
        "", "address attention services dial (default: --listen)", metavar="HOST:PORT"
    )
    ops_listen: str = flag(
        "127.0.0.1:50062", "HTTP address of /metrics, /livez, /readyz", metavar="HOST:PORT"
    )
    router: str = flag(
        "", "router to join; empty: serve the requested pieces alone", metavar="HOST:PORT"
    )
    layers: str = flag("", "layers to hold, for example 0-30,45 (default: the router decides)")
    experts: str = flag("", "experts of these layers to hold, for example 0-127 (default: all)")
    memory: str = flag("", "most memory for weights, for example 48GiB (default: no limit)")
    dtype: str = flag("auto", f"weights as held and computed: {', '.join(DTYPES)}")
    device: str = flag("cpu", "torch device of the weights, for example cpu or cuda")
    threads: int = flag(0, "compute threads (0: all cores)")
    grace_s: float = flag(10.0, "seconds running calls get after SIGTERM")
    tls_ca: Path | None = flag(None, "PEM of the mesh's CA; turns mTLS on", metavar="FILE")
    tls_cert: Path | None = flag(None, "PEM certificate of role expert", metavar="FILE")
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
        if self.threads < 0:
            raise ValueError(f"--threads must be at least 0, got {self.threads}")
        if not self.grace_s >= 0:
            raise ValueError(f"--grace-s must be at least 0, got {self.grace_s}")
        parse_bytes(self.memory, "--memory")

    @property
    def listen_address(self) -> Address:
        return Address.parse(self.listen, "--listen")

    @property
    def memory_bytes(self) -> int | None:
        """The weight budget, or None."""
        return parse_bytes(self.memory, "--memory")

    @property
    def tls(self) -> TlsFiles | None:
        return tls_files(self.tls_ca, self.tls_cert, self.tls_key)
