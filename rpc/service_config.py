"""Which flags do the gRPC services share, and what is allowed in them?"""

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rpc.config import Address
from rpc.flags import flag
from rpc.server import check_exposure
from rpc.tls import TlsFiles, tls_files

MAX_HOST_LENGTH = 64
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """What every gRPC service can be told. Raises ValueError naming the flag."""

    listen: str = flag("127.0.0.1:0", "address to serve gRPC on", metavar="HOST:PORT")
    ops_listen: str = flag(
        "127.0.0.1:0", "HTTP address of /metrics, /livez, /readyz", metavar="HOST:PORT"
    )
    ops_host: tuple[str, ...] = flag(
        (),
        "further name of this machine in the Host header of --ops-listen; IP addresses, names without"
        " a dot and private domains are allowed beyond loopback ('*': every name)",
        metavar="NAME",
    )
    tls_ca: Path | None = flag(None, "PEM of the mesh's CA; turns mTLS on", metavar="FILE")
    tls_cert: Path | None = flag(None, "PEM certificate of this service's role", metavar="FILE")
    tls_key: Path | None = flag(None, "PEM private key of that certificate", metavar="FILE")
    insecure: bool = flag(False, "allow plaintext gRPC beyond loopback")
    log_level: str = flag("info", ", ".join(LOG_LEVELS))

    def __post_init__(self) -> None:
        check_exposure(self.listen_address, tls=self.tls, insecure=self.insecure)
        Address.parse(self.ops_listen, "--ops-listen")
        check_choice("--log-level", self.log_level, LOG_LEVELS)

    @property
    def listen_address(self) -> Address:
        return Address.parse(self.listen, "--listen")

    @property
    def ops_address(self) -> Address:
        return Address.parse(self.ops_listen, "--ops-listen")

    @property
    def tls(self) -> TlsFiles | None:
        """All three files, read and checked, or None for plaintext."""
        return tls_files(self.tls_ca, self.tls_cert, self.tls_key)


@dataclass(frozen=True, kw_only=True)
class MemberConfig(ServiceConfig):
    """What every service can be told that joins a router and is dialled by others."""

    advertise: str = flag("", "address that others dial (default: --listen)", metavar="HOST:PORT")
    router: str = flag("", "router to join", metavar="HOST:PORT")
    grace_s: float = flag(30.0, "seconds running calls get after SIGTERM")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("advertise", "router"):
            if getattr(self, name):
                Address.parse(getattr(self, name), f"--{name}")
        if not self.grace_s >= 0:
            raise ValueError(f"--grace-s must be at least 0, got {self.grace_s}")


def default_member_id(kind: str, port: int) -> str:
    """Unique among hosts and ports, also behind equal port numbers on many hosts."""
    host = socket.gethostname().partition(".")[0][:MAX_HOST_LENGTH]
    return f"{kind}-{re.sub(r'[^A-Za-z0-9_-]', '-', host) or 'host'}-{port}"


def check_choice(flag_name: str, value: str, allowed: Sequence[str]) -> None:
    """Raises ValueError naming the flag unless the value is an allowed one."""
    if value not in allowed:
        raise ValueError(f"{flag_name} must be one of {', '.join(allowed)}, got {value!r}")
