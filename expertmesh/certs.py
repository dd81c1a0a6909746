"""How does a mesh get its certificates? One CA, one certificate per role, ECDSA P-256.

A role's certificate carries the DNS name that `rpc.tls.role_name` gives, and may
be used on both ends of a connection: every service is a server to some and a
client to others. Keys are written with mode 0600 and never leave the folder.
"""

import datetime
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from expertmesh.console import EXIT_USAGE, CommandError
from rpc.tls import ROLES, role_name

CA_NAME = "ca"
Validity = tuple[datetime.datetime, datetime.datetime]
"""(not before, not after)."""
_CLOCK_SKEW = datetime.timedelta(minutes=10)
"""Certificates start this much in the past: hosts' clocks differ a little."""


def cert_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.pem"


def key_path(folder: Path, name: str) -> Path:
    return folder / f"{name}-key.pem"


def create_mesh_certificates(
    folder: Path,
    *,
    days: int,
    force: bool = False,
    start: datetime.datetime | None = None,
) -> None:
    """Write a CA and one certificate and key per role, valid from `start` (now). Raises CommandError.

    An existing CA is kept unless `force`: replacing it invalidates every certificate
    that it has signed.
    """
    if not 1 <= days <= 3650:
        raise CommandError(f"--days: 1 to 3650, got {days}", EXIT_USAGE)
    ca_files = (cert_path(folder, CA_NAME), key_path(folder, CA_NAME))
    existing = [path for path in ca_files if path.exists()]
    if existing and not force:
        raise CommandError(
            f"{existing[0]} exists: a new CA makes every certificate of the old one useless; "
            "choose another --out, or replace it with --force"
        )
    start = start or datetime.datetime.now(datetime.UTC)
    validity = (start - _CLOCK_SKEW, start + datetime.timedelta(days=days))
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        ca_key = ec.generate_private_key(ec.SECP256R1())
        ca = _build_ca(ca_key, validity)
        _write(folder, CA_NAME, ca, ca_key)
        for role in ROLES:
            key = ec.generate_private_key(ec.SECP256R1())
            _write(folder, role, _build_role(role, key, ca, ca_key, validity), key)
    except OSError as error:
        raise CommandError(f"--out {folder}: {error.strerror}") from None


def _build_ca(key: ec.EllipticCurvePrivateKey, validity: Validity) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ExpertMesh CA")])
    builder = _builder(name, name, key, validity)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(sign_certificates=True), critical=True)
    return builder.sign(key, hashes.SHA256())


def _build_role(
    role: str,
    key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    validity: Validity,
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ExpertMesh {role}")])
    builder = _builder(name, ca.subject, key, validity)
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.SubjectAlternativeName([x509.DNSName(role_name(role))]), False),
        (_key_usage(sign_certificates=False), True),
        (
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            False,
        ),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False),
    ]
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(ca_key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, validity: Validity
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(
    folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    """The key first, so that no certificate is ever there without its key."""
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = key_path(folder, name)
    path.unlink(missing_ok=True)  # an old file would keep its own mode
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(key_pem)
    cert_path(folder, name).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
