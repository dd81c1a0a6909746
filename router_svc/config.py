"""Which flags does the router take, and what is allowed?"""

from dataclasses import dataclass
from pathlib import Path

from rpc.config import Address
from rpc.flags import flag
from rpc.server import check_exposure
from rpc.tls import TlsFiles

LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, kw_only=True)
class RouterConfig:
    """Flags of `python -m router_svc`. Raises ValueError naming the flag and what is allowed."""

    listen: str = flag("127.0.0.1:50050", "where gRPC listens", metavar="HOST:PORT")
    ops_listen: str = flag(
        "127.0.0.1:50060",
        "HTTP for /metrics, /livez, /readyz, /sd, /experts/load",
        metavar="HOST:PORT",
    )
    state: Path | None = flag(
        None, "file that keeps the epoch between starts; without it the clock gives one"
    )
    checkpoint_id: str = flag("", "the only checkpoint_id admitted; empty: the first member's")
    lease_ms: int = flag(5000, "a member silent for longer than this is removed")
    adopt_ms: int = flag(
        10_000, "after a restart, how long members are only adopted before anything is removed"
    )
    max_members: int = flag(1000, "most members, and most watchers, at once")
    tls_ca: Path | None = flag(None, "the mesh's CA certificate (PEM)")
    tls_cert: Path | None = flag(None, "this router's certificate (PEM)")
    tls_key: Path | None = flag(None, "this router's private key (PEM)")
    insecure: bool = flag(False, "allow plaintext beyond loopback")
    log_level: str = flag("info", "debug, info, warning or error")

    def __post_init__(self) -> None:
        Address.parse(self.ops_listen, "--ops-listen")
        check_exposure(self.listen_address, tls=self.tls, insecure=self.insecure)
        for name, value, low, high in (
            ("--lease-ms", self.lease_ms, 200, 600_000),
            ("--adopt-ms", self.adopt_ms, 0, 600_000),
            ("--max-members", self.max_members, 1, 1000),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name}: allowed are {low} to {high}, got {value}")
        if self.log_level.lower() not in LOG_LEVELS:
            raise ValueError(
                f"--log-level: allowed are {', '.join(LOG_LEVELS)}, got {self.log_level!r}"
            )

    @property
    def listen_address(self) -> Address:
        return Address.parse(self.listen, "--listen")

    @property
    def ops_address(self) -> Address:
        return Address.parse(self.ops_listen, "--ops-listen")

    @property
    def tls(self) -> TlsFiles | None:
        """All three files, or None for plaintext. Raises ValueError when only some are given."""
        if self.tls_ca and self.tls_cert and self.tls_key:
            return TlsFiles(ca=self.tls_ca, cert=self.tls_cert, key=self.tls_key)
        if self.tls_ca or self.tls_cert or self.tls_key:
            raise ValueError("--tls-ca, --tls-cert and --tls-key: give all three or none")
        return None
