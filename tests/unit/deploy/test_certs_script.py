"""The job of the compose mesh that makes and renews certificates, with folders for its volumes."""

import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from expertmesh.certs import cert_path, create_mesh_certificates, renew
from rpc.access.tls import ROLES, TlsFiles
from tests.support.places import ROOT


@pytest.fixture
def volumes(tmp_path):
    for name in ("ca", "prometheus", *ROLES):
        (tmp_path / "certs" / name).mkdir(parents=True)
    program = tmp_path / "bin" / "expertmesh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m expertmesh "$@"\n')
    program.chmod(0o755)
    return tmp_path / "certs"


def run(volumes: Path, **environment: str) -> None:
    done = subprocess.run(
        ["sh", str(ROOT / "deploy" / "certs.sh")],
        capture_output=True,
        text=True,
        timeout=100,
        env={
            **os.environ,
            "CERTS": str(volumes),
            "PATH": f"{volumes.parent / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            **environment,
        },
    )
    assert done.returncode == 0, done.stderr


def files(volumes: Path) -> dict[str, TlsFiles]:
    return {
        role: TlsFiles(
            ca=volumes / role / "ca.pem",
            cert=volumes / role / "role.pem",
            key=volumes / role / "role-key.pem",
        )
        for role in ROLES
    }


def serial(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


def test_each_role_gets_its_own_pair_and_nobody_the_key_of_the_ca(volumes):
    run(volumes, EXPERTMESH_API_KEY="the-key-of-the-mesh")
    for role, one in files(volumes).items():
        one.read()
        assert stat.S_IMODE(one.key.stat().st_mode) == 0o600
        expected = {"ca.pem", "role.pem", "role-key.pem"}
        expected |= {"api-key"} if role == "gateway" else set()
        assert {path.name for path in (volumes / role).iterdir()} == expected
    assert (volumes / "gateway" / "api-key").read_text() == "the-key-of-the-mesh\n"
    assert stat.S_IMODE((volumes / "gateway" / "api-key").stat().st_mode) == 0o600
    assert (volumes / "prometheus" / "api-key").read_text() == "the-key-of-the-mesh\n"


def test_what_is_good_for_long_stays_and_what_expires_soon_is_renewed(volumes):
    create_mesh_certificates(volumes / "ca", days=365)
    renew(volumes / "ca", days=30, members=())
    before = {role: serial(cert_path(volumes / "ca", role)) for role in ROLES}
    ca = serial(cert_path(volumes / "ca", "ca"))
    run(volumes)
    renewed = {role: serial(one.cert) for role, one in files(volumes).items()}
    assert all(renewed[role] != before[role] for role in ROLES)
    assert all(serial(one.ca) == ca for one in files(volumes).values())
    run(volumes)
    assert {role: serial(one.cert) for role, one in files(volumes).items()} == renewed
