"""Which flags does the gateway take, and which combinations are refused?"""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gateway.api_keys import check_key, digests, read_keys, read_seal_keys
from gateway.limits import Limits
from rpc.access.host_names import ip_of
from rpc.config import Address
from rpc.process.flags import flag
from rpc.process.service_config import LOG_LEVELS, AccessFlags, check_access, check_choice
from rpc.process.sizes import parse_bytes
from rpc.watched import Watched

_RANGES = (
    ("max-concurrent", 1, 100_000),
    ("max-connections", 8, 1_000_000),
    ("forced-call-tokens", 1, 1_000_000),
    ("request-timeout-s", 0, 86_400),
    ("response-ttl-s", 60, 10 * 365 * 86_400),
    ("drain-s", 0, 3600),
)

POSTGRES = "postgres"
URL_VARIABLE = "EXPERTMESH_RESPONSE_STORE_URL"
MIN_STORE_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class GatewayConfig(AccessFlags):
    """Validated flags. Raises ValueError naming the flag and what is allowed."""

    model: Path | None = flag(
        None, "checkpoint folder; only tokenizer, template and configs are read", metavar="PATH"
    )
    served_model_name: tuple[str, ...] = flag(
        (), "name in the API; the first is shown, all are accepted (default: the folder's name)"
    )
    any_model_name: bool = flag(
        False, "answer requests for every model name, as single-model servers do"
    )
    listen: str = flag("127.0.0.1:8000", "HTTP address", metavar="HOST:PORT")
    router: str | None = flag(None, "router to learn attention services from", metavar="HOST:PORT")
    attention: tuple[str, ...] = flag((), "attention service, static", metavar="HOST:PORT")
    api_key: tuple[str, ...] = flag(
        (), "key that clients must present as a bearer token", secret=True
    )
    api_key_file: Path | None = flag(
        None, "file with such keys, one a line; read again when it changes", metavar="FILE"
    )
    insecure_no_auth: bool = flag(False, "allow an address beyond loopback without any key")
    cors_origin: tuple[str, ...] = flag(
        (),
        "origin whose web pages may call the API, besides the gateway's own ('*': every one)",
        metavar="ORIGIN",
    )
    allowed_host: tuple[str, ...] = flag(
        (),
        "name under which a loopback address may be called, besides localhost, this machine's "
        "name, *.local and *.internal ('*': every one)",
        metavar="NAME",
    )
    max_concurrent: int = flag(64, "requests in flight for each key; more are answered with 429")
    max_connections: int = flag(1024, "HTTP connections at once; some more are kept for probes")
    max_connections_per_address: int = flag(
        0,
        "the same for one client address (a reverse proxy is one); 0: three quarters of "
        "--max-connections",
    )
    forced_call_tokens: int = flag(
        4096, "longest forced tool call (tool_choice) in tokens when the request sets no max_tokens"
    )
    restore_thinking: str = flag(
        "keyed",
        "whose tool calls get their thinking back when a client drops it: keyed (clients with an "
        "API key, and others within a session that they name), always or off",
    )
    unreadable: str = flag(
        "refuse",
        "images, files and other content that is not text, in what is asked now: refuse, or "
        "placeholder (a few words in its place, as in earlier turns and tool results)",
    )
    request_timeout_s: float = flag(
        0.0,
        "longest time for a request from its receipt, in seconds; 0: only the attention service's "
        "own limit",
    )
    response_store: str = flag(
        "none",
        "where answers are kept, for requests that refer to them: the path of a SQLite file, "
        "postgres (several gateways may share it) or none",
        metavar="PATH",
    )
    response_store_url_file: Path | None = flag(
        None,
        "file with the URL of the PostgreSQL database (or EXPERTMESH_RESPONSE_STORE_URL in the "
        "environment; a command line is no place for its password)",
        metavar="FILE",
    )
    response_store_size: str = flag(
        "1GiB", "how much is kept; beyond it the answers used longest ago go first", metavar="SIZE"
    )
    response_ttl_s: float = flag(
        86_400.0, "how long an answer is kept after its conversation was last continued, in seconds"
    )
    reasoning_key_file: Path | None = flag(
        None,
        "file with keys for encrypted thinking (Responses), one a line, which gateways may share; "
        "read again when it changes (default: a key that ends with the process)",
        metavar="FILE",
    )
    drain_s: float = flag(30.0, "how long running requests may finish after SIGTERM, in seconds")
    tls_ca: Path | None = flag(None, "CA of the mesh", metavar="PEM")
    tls_cert: Path | None = flag(None, "certificate with the gateway role", metavar="PEM")
    tls_key: Path | None = flag(None, "key of --tls-cert", metavar="PEM")
    secret_file: Path | None = flag(
        None, "without TLS: the file with the mesh's secret", metavar="FILE"
    )
    insecure: bool = flag(False, "allow plaintext gRPC to addresses beyond loopback")
    log_level: str = flag("info", "debug, info, warning or error")

    def __post_init__(self) -> None:
        if self.model is None:
            raise ValueError("--model: a checkpoint folder is needed")
        if not self.router and not self.attention:
            raise ValueError("--router or --attention is needed: without one there is no model")
        self._check_exposure()
        self._check_store()
        check_access(self.tls, self.secret_file)
        check_choice("--log-level", self.log_level, LOG_LEVELS)
        check_choice("--restore-thinking", self.restore_thinking, ("keyed", "always", "off"))
        check_choice("--unreadable", self.unreadable, ("refuse", "placeholder"))
        for name, low, high in _RANGES:
            if not low <= getattr(self, name.replace("-", "_")) <= high:
                raise ValueError(f"--{name}: {low} to {high}")
        if not 0 <= self.max_connections_per_address <= self.max_connections:
            raise ValueError("--max-connections-per-address: 0 to --max-connections")
        if any(not name or len(name) > 200 for name in self.served_model_name):
            raise ValueError("--served-model-name: 1 to 200 characters")

    def _check_exposure(self) -> None:
        for key in self.api_key:
            check_key(key, "--api-key")
        _ = self.seal_keys
        has_keys = bool(self.api_key) or self.key_file is not None
        for host in self.allowed_host:
            if not host or "/" in host or (":" in host and ip_of(host) is None):
                raise ValueError(
                    f"--allowed-host {host}: a host name or address, without scheme and port"
                )
        if not self.listen_address.is_loopback and not has_keys and not self.insecure_no_auth:
            raise ValueError(
                f"--listen {self.listen}: an address beyond loopback needs --api-key-file, or "
                "--insecure-no-auth on a network you trust"
            )
        if self.tls is None and not self.insecure:
            for name, target in self._targets():
                if not target.is_loopback:
                    raise ValueError(
                        f"--{name} {target}: plaintext gRPC is allowed on loopback only; give "
                        "--tls-ca, --tls-cert and --tls-key, or --insecure on a network you trust"
                    )

    def _check_store(self) -> None:
        if not self.response_store or "://" in self.response_store:  # not repeated: a password
            raise ValueError(
                f"--response-store: the path of a file, {POSTGRES} or none; a database's URL goes "
                "into --response-store-url-file or EXPERTMESH_RESPONSE_STORE_URL"
            )
        if self.response_store_bytes < MIN_STORE_BYTES:
            raise ValueError("--response-store-size: at least 1MiB")
        if self.response_store_url_file is not None and self.response_store != POSTGRES:
            raise ValueError(f"--response-store-url-file: needs --response-store {POSTGRES}")

    @property
    def response_store_bytes(self) -> int:
        """Raises ValueError naming the flag."""
        return parse_bytes(self.response_store_size, "--response-store-size") or 0

    def response_store_url(self) -> str:
        """Of the PostgreSQL database; "" for other stores. Raises ValueError if it is missing."""
        if self.response_store != POSTGRES:
            return ""
        path, url = self.response_store_url_file, os.environ.get(URL_VARIABLE, "")
        if path is not None:
            try:
                url = path.read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"--response-store-url-file: cannot read {path}: {error}"
                ) from None
        if not url.strip():
            raise ValueError(
                f"--response-store {POSTGRES}: its URL is needed, in --response-store-url-file or "
                f"in {URL_VARIABLE}"
            )
        return url.strip()

    def _targets(self) -> list[tuple[str, Address]]:
        targets = [("attention", Address.parse(text, "--attention")) for text in self.attention]
        if self.router:
            targets.append(("router", Address.parse(self.router, "--router")))
        return targets

    @property
    def limits(self) -> Limits:
        """The limits, with the flags applied."""
        return Limits(
            concurrent_per_key=self.max_concurrent,
            max_connections=self.max_connections,
            max_connections_per_address=(
                self.max_connections_per_address or self.max_connections * 3 // 4
            ),
        )

    @property
    def listen_address(self) -> Address:
        return Address.parse(self.listen, "--listen")

    @cached_property
    def key_file(self) -> Watched[tuple[bytes, ...]] | None:
        """Hashes of the keys in --api-key-file. Raises ValueError for a bad file."""
        path = self.api_key_file
        if path is None:
            return None
        return Watched([path], lambda: digests(read_keys(path)), what="--api-key-file")

    @cached_property
    def seal_keys(self) -> Watched[tuple[bytes, ...]] | None:
        """The keys in --reasoning-key-file. Raises ValueError for a bad file."""
        path = self.reasoning_key_file
        if path is None:
            return None
        return Watched([path], lambda: read_seal_keys(path), what="--reasoning-key-file")

    def reload(self) -> None:
        """Read the files with certificates, secrets and keys again if they have changed."""
        super().reload()
        if self.seal_keys is not None:
            self.seal_keys.reload()
        if self.key_file is not None:
            self.key_file.reload()
