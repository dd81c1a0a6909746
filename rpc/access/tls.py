"""Who may talk to whom? mTLS with one certificate per role.

A certificate's SAN is `<role>.expertmesh.internal`. The client checks that the
server has the wanted role (by overriding the target name); the server checks
the caller's role for each RPC (`rpc.access.guard`). Plaintext is used on loopback,
or where it is allowed explicitly.
"""

import datetime
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc

from rpc.watched import Watched

ROLES = ("gateway", "attention", "expert", "router", "cli")


def role_name(role: str) -> str:
    """The DNS name in the certificate of a role."""
    return f"{role}.expertmesh.internal"


def member_uri(role: str, member_id: str) -> str:
    """The URI in the certificate of one member."""
    return f"spiffe://expertmesh.internal/{role}/{member_id}"


def certificate_names(context: Any) -> list[str]:
    """The names in the caller's certificate, sorted; none without TLS."""
    names = context.auth_context().get("x509_subject_alternative_name", ())
    return sorted(name.decode("ascii", "replace") for name in names)


def member_ids(context: Any, role: str) -> frozenset[str]:
    """The members of a role that the caller's certificate names; empty: it names only the role."""
    prefix = member_uri(role, "")
    uris = (uri.decode("ascii", "replace") for uri in context.auth_context().get("peer_uri", ()))
    return frozenset(uri.removeprefix(prefix) for uri in uris if uri.startswith(prefix))


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """PEM files: the CAs of the mesh, and this process's certificate and key.

    They are read again when they change. Use one object per process: each caches what it read.
    """

    ca: Path
    cert: Path
    key: Path

    @cached_property
    def pems(self) -> Watched[tuple[bytes, bytes, bytes]]:
        """CAs, certificate and key, as they are now. Raises ValueError at the first reading."""
        paths = [Path(path) for path in (self.ca, self.cert, self.key)]
        return Watched(paths, self.read, what="--tls-ca, --tls-cert, --tls-key")

    def expires_at_s(self) -> float:
        """When the certificate or the last CA expires (Unix time), whichever is first."""
        from cryptography import x509

        ca, cert, _ = self.pems.get()
        last_ca = max(one.not_valid_after_utc for one in x509.load_pem_x509_certificates(ca))
        leaf = x509.load_pem_x509_certificate(cert)
        return min(last_ca, leaf.not_valid_after_utc).timestamp()

    def read(self) -> tuple[bytes, bytes, bytes]:
        """CA, certificate and key as PEM. Raises ValueError naming a bad file."""
        contents = []
        for field, path in (("tls-ca", self.ca), ("tls-cert", self.cert), ("tls-key", self.key)):
            try:
                contents.append(Path(path).read_bytes())
            except OSError as error:
                raise ValueError(f"--{field}: cannot read {path}: {error.strerror}") from None
        ca, cert, key = contents
        for field, path, pem in (("tls-ca", self.ca, ca), ("tls-cert", self.cert, cert)):
            _check_certificates(field, path, pem)
        _check_key(self.key, key, cert)
        return ca, cert, key


def _check_certificates(field: str, path: Path, pem: bytes) -> None:
    """Check the dates. Of several CAs, as while one is being replaced, one valid one is enough."""
    from cryptography import x509  # tens of megabytes, needed with TLS only

    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ValueError(f"--{field}: {path} is not a PEM certificate") from None
    now = datetime.datetime.now(datetime.UTC)
    if field == "tls-ca" and any(
        one.not_valid_before_utc <= now <= one.not_valid_after_utc for one in certificates
    ):
        return
    certificate = certificates[0]
    if now > certificate.not_valid_after_utc:
        raise ValueError(f"--{field}: {path} expired on {certificate.not_valid_after_utc:%Y-%m-%d}")
    if now < certificate.not_valid_before_utc:
        raise ValueError(
            f"--{field}: {path} is not valid before {certificate.not_valid_before_utc};"
            " is the clock wrong?"
        )


def _check_key(path: Path, pem: bytes, certificate_pem: bytes) -> None:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # not a key; encrypted; exotic
        raise ValueError(f"--tls-key: {path} holds no plain PEM private key") from None
    if key.public_key() != x509.load_pem_x509_certificate(certificate_pem).public_key():
        raise ValueError(f"--tls-key: {path} does not belong to the certificate of --tls-cert")


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials of a server that demands a client certificate of the mesh's CA.

    New files apply to new connections; existing connections continue.
    """
    taken = files.pems.get()

    def configuration() -> grpc.ServerCertificateConfiguration:
        ca, cert, key = taken
        return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=ca)

    def newer() -> grpc.ServerCertificateConfiguration | None:
        """Asked by gRPC, on a thread of its own, before each handshake."""
        nonlocal taken
        newest = files.pems.get()
        if newest is taken:
            return None
        taken = newest
        return configuration()

    return grpc.dynamic_ssl_server_credentials(
        configuration(), newer, require_client_authentication=True
    )


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Credentials of a client of the mesh, from the files as they are now."""
    ca, cert, key = files.pems.get()
    return grpc.ssl_channel_credentials(ca, key, cert)


async def require_role(context: Any, allowed: Collection[str], *, tls: bool) -> None:
    """Refuse the RPC unless the caller's certificate has one of the allowed roles.

    Without TLS (loopback, or allowed explicitly) every caller passes. Aborts
    with PERMISSION_DENIED before any message is read.
    """
    if not tls:
        return
    callers = set(certificate_names(context))
    if not callers & {role_name(role) for role in allowed}:
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED,
            f"role {sorted(callers)} may not call this; allowed: {sorted(allowed)}",
        )


def tls_files(ca: Path | None, cert: Path | None, key: Path | None) -> TlsFiles | None:
    """All three files, checked, or None when none is given. Raises ValueError."""
    if ca is None and cert is None and key is None:
        return None
    if ca is None or cert is None or key is None:
        raise ValueError("--tls-ca, --tls-cert and --tls-key go together")
    files = TlsFiles(ca=ca, cert=cert, key=key)
    files.pems.get()
    return files
