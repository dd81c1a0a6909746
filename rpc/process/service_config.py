"""Which flags do the gRPC services share, and what is allowed in them?"""

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rpc.access.secret import MeshSecret
from rpc.access.tls import TlsFiles, tls_files
from rpc.channel import Access
from rpc.config import Address
from rpc.process.flags import flag
from rpc.process.server import check_exposure

MAX_HOST_LENGTH = 64
LOG_LEVELS = ("debug", "info", "warning", "error")


class AccessFlags:
    """What the flags for certificates or a secret give; for configs with these fields."""

    tls_ca: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    secret_file: Path | None

    @cached_property
    def tls(self) -> TlsFiles | None:
        """All three files, read and checked, or None for plaintext."""
        return tls_files(self.tls_ca, self.tls_cert, self.tls_key)

    @cached_property
    def secret(self) -> MeshSecret | None:
        """The mesh's secret, where there is one. Raises ValueError for a bad file."""
        return None if self.secret_file is None else MeshSecret(self.secret_file)

    def reload(self) -> None:
        """Read the files with certificates and secrets again if they have changed."""
        for files in (self.tls and self.tls.pems, self.secret):
            if files:
                files.reload()

    @property
    def access(self) -> Access | None:
        """How the service proves to others that it may call them."""
        return self.tls or self.secret


@dataclass(frozen=True, kw_only=True)
class ServiceConfig(AccessFlags):
    """The flags of every gRPC service. Raises ValueError naming the flag."""

    listen: str = flag("127.0.0.1:0", "address to serve gRPC on", metavar="HOST:PORT")
    ops_listen: str = flag(
        "127.0.0.1:0", "HTTP address of /metrics, /livez, /readyz", metavar="HOST:PORT"
    )
    ops_host: tuple[str, ...] = flag(
        (),
        "further name of this machine in the Host header of --ops-listen, besides IP addresses,"
        " names without a dot, .local, .internal and the like ('*': every name)",
        metavar="NAME",
    )
    tls_ca: Path | None = flag(None, "PEM of the mesh's CA; turns mTLS on", metavar="FILE")
    tls_cert: Path | None = flag(None, "PEM certificate of this service's role", metavar="FILE")
    tls_key: Path | None = flag(None, "PEM private key of that certificate", metavar="FILE")
    secret_file: Path | None = flag(
        None, "without TLS: secrets, one per line, of which callers must know one", metavar="FILE"
    )
    insecure: bool = flag(False, "allow plaintext gRPC beyond loopback")
    reflection: bool = flag(False, "answer gRPC reflection, as grpcurl asks for it")
    log_level: str = flag("info", ", ".join(LOG_LEVELS))

    def __post_init__(self) -> None:
        check_exposure(self.listen_address, tls=self.tls, insecure=self.insecure)
        check_access(self.tls, self.secret_file)
        Address.parse(self.ops_listen, "--ops-listen")
        check_choice("--log-level", self.log_level, LOG_LEVELS)

    @property
    def listen_address(self) -> Address:
        return Address.parse(self.listen, "--listen")

    @property
    def ops_address(self) -> Address:
        return Address.parse(self.ops_listen, "--ops-listen")


@dataclass(frozen=True, kw_only=True)
class MemberConfig(ServiceConfig):
    """The flags of services that join a router and that others dial."""

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
    """An id that is unique among hosts and ports, from the host's name and the port."""
    host = socket.gethostname().partition(".")[0][:MAX_HOST_LENGTH]
    return f"{kind}-{re.sub(r'[^A-Za-z0-9_-]', '-', host) or 'host'}-{port}"


def check_access(tls: TlsFiles | None, secret_file: Path | None) -> None:
    """Raises ValueError when both are given: with TLS, a secret would add nothing."""
    if tls is not None and secret_file is not None:
        raise ValueError("--secret-file: give either it or the --tls-* flags")


def check_choice(flag_name: str, value: str, allowed: Sequence[str]) -> None:
    """Raises ValueError naming the flag unless the value is an allowed one."""
    if value not in allowed:
        raise ValueError(f"{flag_name} must be one of {', '.join(allowed)}, got {value!r}")
