"""Certificates for tests: good ones of a mesh, and every bad one."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rpc.access.tls import TlsFiles, role_name

DAY = datetime.timedelta(days=1)


class Authority:
    """A CA in a folder; `issue` writes a certificate and key, and returns the three files."""

    def __init__(self, folder: Path, name: str = "ca"):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test {name}")])
        builder = _builder(self.name, self.name, self.key, -DAY, DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(_pem(builder.sign(self.key, hashes.SHA256())))

    def issue(
        self,
        role: str,
        *,
        start: datetime.timedelta = -DAY,
        end: datetime.timedelta = DAY,
        self_signed: bool = False,
    ) -> TlsFiles:
        """A certificate of `role`, valid from now + `start` to now + `end`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, role)])
        issuer = subject if self_signed else self.name
        builder = _builder(subject, issuer, key, start, end).add_extension(
            x509.SubjectAlternativeName([x509.DNSName(role_name(role))]), False
        )
        signed = builder.sign(key if self_signed else self.key, hashes.SHA256())
        stem = f"{role}-{signed.serial_number:x}"
        cert, key_file = self.folder / f"{stem}.pem", self.folder / f"{stem}-key.pem"
        cert.write_bytes(_pem(signed))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return TlsFiles(ca=self.path, cert=cert, key=key_file)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    start: datetime.timedelta,
    end: datetime.timedelta,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + start)
        .not_valid_after(now + end)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
