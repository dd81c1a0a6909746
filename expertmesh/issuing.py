"""What is in a certificate of the mesh, and how is it written to a folder?

ECDSA P-256. A leaf has the DNS name from `rpc.access.tls.role_name`, and a member's also the URI
from `rpc.access.tls.member_uri`. It is valid at both ends of a connection, because every service is
a server to some and a client of others.
"""

import datetime
import os
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rpc.access.tls import member_uri, role_name

Validity = tuple[datetime.datetime, datetime.datetime]
"""(not before, not after)."""
_CLOCK_SKEW = datetime.timedelta(minutes=10)
"""Certificates start this long ago, because the hosts' clocks differ a little."""


def validity(start: datetime.datetime, days: int) -> Validity:
    return start - _CLOCK_SKEW, start + datetime.timedelta(days=days)


def build_ca(key: ec.EllipticCurvePrivateKey, valid: Validity) -> x509.Certificate:
    # A unique name, because two CAs may be trusted at the same time.
    common_name = f"ExpertMesh CA {secrets.token_hex(4)}"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = _builder(name, name, key, valid)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(sign_certificates=True), critical=True)
    return builder.sign(key, hashes.SHA256())


def build_leaf(
    role: str,
    member_id: str,
    key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    valid: Validity,
) -> x509.Certificate:
    """For one member, or with an empty id for the whole role; expires no later than its CA."""
    text = f"ExpertMesh {role} {member_id}".rstrip()[:64]
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
    names: list[x509.GeneralName] = [x509.DNSName(role_name(role))]
    if member_id:
        names.append(x509.UniformResourceIdentifier(member_uri(role, member_id)))
    valid = (valid[0], min(valid[1], ca.not_valid_after_utc))
    builder = _builder(name, ca.subject, key, valid)
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.SubjectAlternativeName(names), False),
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
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, valid: Validity
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid[0])
        .not_valid_after(valid[1])
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


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def certificates_pem(certificates: list[x509.Certificate]) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Replace the file atomically: a service that reads it sees the old file or the new one."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)  # an old file would keep its own mode
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
    os.replace(fresh, path)
