"""Certificates have the right names and modes, and gRPC accepts exactly these."""

import asyncio
import stat
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc

from expertmesh.certs import cert_path, create_mesh_certificates, key_path
from expertmesh.console import CommandError
from rpc.access.tls import ROLES, TlsFiles, role_name
from rpc.channel import open_channel
from rpc.config import Address
from rpc.process.server import GrpcHost


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs") / "mesh"
    create_mesh_certificates(folder, days=30)
    return folder


def files(folder: Path, role: str) -> TlsFiles:
    return TlsFiles(
        ca=cert_path(folder, "ca"), cert=cert_path(folder, role), key=key_path(folder, role)
    )


@pytest.mark.parametrize("role", ROLES)
def test_each_role_has_its_name_and_is_signed_by_the_ca(folder: Path, role: str) -> None:
    ca = x509.load_pem_x509_certificate(cert_path(folder, "ca").read_bytes())
    certificate = x509.load_pem_x509_certificate(cert_path(folder, role).read_bytes())
    certificate.verify_directly_issued_by(ca)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [role_name(role)]
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lifetime.days == 30


def test_keys_are_readable_by_their_owner_only(folder: Path) -> None:
    for name in ("ca", *ROLES):
        assert stat.S_IMODE(key_path(folder, name).stat().st_mode) == 0o600


def test_an_existing_ca_is_kept_unless_forced(folder: Path) -> None:
    before = cert_path(folder, "ca").read_bytes()
    with pytest.raises(CommandError, match="--force"):
        create_mesh_certificates(folder, days=30)
    assert cert_path(folder, "ca").read_bytes() == before


def test_force_replaces_the_ca_and_every_certificate(tmp_path: Path) -> None:
    create_mesh_certificates(tmp_path, days=30)
    key_path(tmp_path, "router").chmod(0o644)
    before = cert_path(tmp_path, "ca").read_bytes()
    create_mesh_certificates(tmp_path, days=30, force=True)
    assert cert_path(tmp_path, "ca").read_bytes() != before
    assert stat.S_IMODE(key_path(tmp_path, "router").stat().st_mode) == 0o600
    ca = x509.load_pem_x509_certificate(cert_path(tmp_path, "ca").read_bytes())
    router = x509.load_pem_x509_certificate(cert_path(tmp_path, "router").read_bytes())
    router.verify_directly_issued_by(ca)


@pytest.mark.parametrize("days", [0, -1, 100_000])
def test_senseless_lifetimes_are_refused(tmp_path: Path, days: int) -> None:
    with pytest.raises(CommandError, match="--days"):
        create_mesh_certificates(tmp_path, days=days)


def check_health(server: TlsFiles, client: TlsFiles | None, wanted_role: str) -> None:
    async def call() -> None:
        host = GrpcHost(Address(host="127.0.0.1", port=0), tls=server)
        await host.start([])
        channel = open_channel(str(host.address), tls=client, server_role=wanted_role)
        try:
            stub = health_pb2_grpc.HealthStub(channel)
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        finally:
            await channel.close()
            await host.stop(0)

    asyncio.run(call())


def test_a_client_of_the_mesh_reaches_the_role_it_wants(folder: Path) -> None:
    check_health(files(folder, "expert"), files(folder, "attention"), "expert")


def test_a_server_of_another_role_is_refused(folder: Path) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        check_health(files(folder, "gateway"), files(folder, "attention"), "expert")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("stranger", ["plaintext", "another mesh"])
def test_strangers_are_refused(folder: Path, tmp_path: Path, stranger: str) -> None:
    client = None
    if stranger == "another mesh":
        create_mesh_certificates(tmp_path, days=1)
        client = files(tmp_path, "attention")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        check_health(files(folder, "expert"), client, "expert")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
