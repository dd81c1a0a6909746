"""How does a mesh get its certificates, and new ones before the old expire?

A folder holds the CA (`ca.pem`, `ca-key.pem`), and a certificate and key for each role or for each
named member: `expert-east.pem` is for the pool `east` only. Services trust what is in `ca.pem`:
first the CA that signs, and while the CA is being changed, also the one before it. Keys are written
with mode 0600.
"""

import datetime
import re
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from expertmesh.console import EXIT_USAGE, CommandError
from expertmesh.issuing import (
    Validity,
    build_ca,
    build_leaf,
    certificates_pem,
    key_pem,
    replace_file,
    validity,
)
from rpc.access.tls import ROLES, role_name

CA_NAME = "ca"
CA_DAYS = 3650
MEMBER_ROLES = ("expert", "attention")
_MEMBER = re.compile(rf"({'|'.join(MEMBER_ROLES)})/([A-Za-z0-9][A-Za-z0-9._-]{{0,127}})")


def cert_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.pem"


def key_path(folder: Path, name: str) -> Path:
    return folder / f"{name}-key.pem"


def file_name(role: str, member_id: str) -> str:
    return f"{role}-{member_id}" if member_id else role


def read_members(texts: Sequence[str]) -> list[tuple[str, str]]:
    """(role, id) of each ROLE/ID. Raises CommandError."""
    members = []
    for text in texts:
        found = _MEMBER.fullmatch(text)
        if found is None or found[2].endswith("-key") or found[2] == "key":
            raise CommandError(
                f"--member: expected {' or '.join(f'{role}/ID' for role in MEMBER_ROLES)} with an "
                f"id of letters, digits, '.', '_' and '-' that does not end in -key, got {text!r}",
                EXIT_USAGE,
            )
        members.append((found[1], found[2]))
    return members


def create_mesh_certificates(
    folder: Path,
    *,
    days: int,
    members: Sequence[str] = (),
    force: bool = False,
    start: datetime.datetime | None = None,
) -> list[str]:
    """Write a CA and the certificates, valid from `start` (now); returns their names.

    A role with named members gets no certificate without a name, which could take any free
    name. An existing CA is kept unless `force`, because replacing it invalidates every certificate
    that it signed. Raises CommandError.
    """
    _check_days(days)
    named = read_members(members)
    files = (cert_path(folder, CA_NAME), key_path(folder, CA_NAME))
    existing = [path for path in files if path.exists()]
    if existing and not force:
        raise CommandError(
            f"{existing[0]} exists, and a new CA would make its certificates useless: use "
            "`expertmesh certs renew` to renew them, or give another --out or --force"
        )
    roles = [(role, "") for role in ROLES if role not in {role for role, _ in named}]
    start = start or datetime.datetime.now(datetime.UTC)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = build_ca(ca_key, validity(start, max(days, CA_DAYS)))
    _write(folder, CA_NAME, [ca], ca_key)
    return _issue(folder, [*roles, *named], ca, ca_key, validity(start, days))


def renew(
    folder: Path,
    *,
    days: int,
    members: Sequence[str] = (),
    within_days: float | None = None,
    start: datetime.datetime | None = None,
) -> list[str]:
    """Replace the keys and certificates in the folder, and make those of new members.

    `within_days`: only those that expire within that time or were signed by another CA.
    Returns the names of the new ones. Raises CommandError.
    """
    _check_days(days)
    start = start or datetime.datetime.now(datetime.UTC)
    trusted, ca_key = _read_ca(folder)
    wanted = read_members(members)
    for role, member_id, certificate in _leaves(folder):
        if (role, member_id) in wanted:
            continue
        left = certificate.not_valid_after_utc - start
        signed_by_it = certificate.issuer == trusted[0].subject
        if within_days is None or not signed_by_it or left <= datetime.timedelta(days=within_days):
            wanted.append((role, member_id))
    return _issue(folder, wanted, trusted[0], ca_key, validity(start, days))


def add_ca(folder: Path, *, start: datetime.datetime | None = None) -> None:
    """Make a new CA that signs from now on; the old one stays trusted. Raises CommandError."""
    trusted, _ = _read_ca(folder)
    if len(trusted) > 1:
        raise CommandError(
            f"{cert_path(folder, CA_NAME)} holds two CAs already: finish that change first "
            "(`expertmesh certs renew`, then `expertmesh certs drop-ca`)"
        )
    ca_key = ec.generate_private_key(ec.SECP256R1())
    start = start or datetime.datetime.now(datetime.UTC)
    _write(folder, CA_NAME, [build_ca(ca_key, validity(start, CA_DAYS)), *trusted], ca_key)


def drop_ca(folder: Path) -> None:
    """Trust only the CA that signs. Raises CommandError if another signed a certificate here."""
    trusted, ca_key = _read_ca(folder)
    old = [
        file_name(role, member_id)
        for role, member_id, certificate in _leaves(folder)
        if certificate.issuer != trusted[0].subject
    ]
    if old:
        raise CommandError(
            f"still signed by the old CA: {', '.join(old)}; first run `expertmesh certs renew`"
        )
    _write(folder, CA_NAME, trusted[:1], ca_key)


def _check_days(days: int) -> None:
    if not 1 <= days <= CA_DAYS:
        raise CommandError(f"--days: 1 to {CA_DAYS}, got {days}", EXIT_USAGE)


def _read_ca(folder: Path) -> tuple[list[x509.Certificate], ec.EllipticCurvePrivateKey]:
    """(the trusted CAs, the key of the first one). Raises CommandError."""
    try:
        trusted = x509.load_pem_x509_certificates(cert_path(folder, CA_NAME).read_bytes())
        key = load_pem_private_key(key_path(folder, CA_NAME).read_bytes(), password=None)
    except OSError as error:
        raise CommandError(f"--out {folder}: no CA to sign with: {error}") from None
    except (ValueError, TypeError) as error:
        raise CommandError(f"--out {folder}: the CA cannot be read: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CommandError(f"{key_path(folder, CA_NAME)}: not a key made by this command")
    if key.public_key() != trusted[0].public_key():
        raise CommandError(f"{key_path(folder, CA_NAME)} is not the key of the first CA beside it")
    return trusted, key


def _leaves(folder: Path) -> list[tuple[str, str, x509.Certificate]]:
    """(role, member id, certificate) of every pair in the folder. Raises CommandError."""
    found = []
    for path in sorted(folder.glob("*.pem")):
        role, _, member_id = path.stem.partition("-")
        if path.stem == CA_NAME or path.stem.endswith("-key") or role not in ROLES:
            continue
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except ValueError as error:
            raise CommandError(f"{path}: {error}") from None
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if role_name(role) in names.get_values_for_type(x509.DNSName):
            found.append((role, member_id, certificate))
    return found


def _issue(
    folder: Path,
    wanted: Sequence[tuple[str, str]],
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    valid: Validity,
) -> list[str]:
    names = []
    for role, member_id in wanted:
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = build_leaf(role, member_id, key, ca, ca_key, valid)
        names.append(file_name(role, member_id))
        _write(folder, names[-1], [leaf], key)
    return names


def _write(
    folder: Path,
    name: str,
    certificates: list[x509.Certificate],
    key: ec.EllipticCurvePrivateKey,
) -> None:
    """Write the key first, so that no certificate is ever without its key. Raises CommandError."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(key_path(folder, name), key_pem(key), 0o600)
        replace_file(cert_path(folder, name), certificates_pem(certificates), 0o644)
    except OSError as error:
        raise CommandError(f"--out {folder}: {error.strerror}") from None
