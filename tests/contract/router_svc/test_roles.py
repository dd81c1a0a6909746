"""Who may join and who may watch, with real certificates."""

import contextlib
import datetime
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from protos import router_pb2, router_pb2_grpc
from rpc.access.tls import ROLES, TlsFiles, role_name
from rpc.channel import open_channel
from rpc.mesh.lease import Lease
from rpc.mesh.topology import TopologyWatcher
from tests.support.router_svc.harness import (
    ATTENTION,
    POOL,
    Joined,
    offer,
    register,
    running_router,
    until,
)

DENIED = grpc.StatusCode.PERMISSION_DENIED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
CALL_S = 60.0
"""Bound of a call that takes milliseconds where nothing else runs: a handshake needs its share."""


class Authority:
    """A certificate authority that writes PEM files."""

    def __init__(self, folder: Path):
        self._folder = folder
        folder.mkdir()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test mesh CA")])
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        builder = self._builder(self._name, self._key, constraints)
        self.certificate = builder.sign(self._key, hashes.SHA256())
        self._write("ca.pem", self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, role: str) -> TlsFiles:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, role)])
        builder = self._builder(subject, key, x509.BasicConstraints(ca=False, path_length=None))
        names = x509.SubjectAlternativeName([x509.DNSName(role_name(role))])
        certificate = builder.add_extension(names, critical=False).sign(self._key, hashes.SHA256())
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return TlsFiles(
            ca=self._folder / "ca.pem",
            cert=self._write(f"{role}.pem", certificate.public_bytes(serialization.Encoding.PEM)),
            key=self._write(f"{role}.key", pem),
        )

    def _builder(self, subject, key, constraints) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(constraints, critical=True)
        )

    def _write(self, name: str, content: bytes) -> Path:
        path = self._folder / name
        path.write_bytes(content)
        return path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> dict[str, TlsFiles]:
    authority = Authority(tmp_path_factory.mktemp("mesh") / "certs")
    return {role: authority.issue(role) for role in ROLES}


@contextlib.asynccontextmanager
async def secured_router(certificates):
    files = certificates["router"]
    flags = {"tls_ca": files.ca, "tls_cert": files.cert, "tls_key": files.key}
    async with running_router(**flags) as router:
        yield router


async def join_as(
    router, tls: TlsFiles | None, role: int, *, speaks: bool = True
) -> tuple[grpc.StatusCode, str]:
    """How a Join with these files ends; OK when it was welcomed and said goodbye."""
    async with open_channel(str(router.address), tls=tls, server_role="router") as channel:
        stream = Joined(router_pb2_grpc.RouterStub(channel))
        if not speaks:  # a refusal does not wait for a frame, and a write may hide its status
            return await stream.outcome()
        with contextlib.suppress(grpc.aio.AioRpcError):
            await stream.say(register(role=role, offer=offer() if role == POOL else None))
            await stream.hear("welcome")
            await stream.say(router_pb2.JoinRequest(leave=router_pb2.Leave()))
        return await stream.outcome()


async def watch_as(router, tls: TlsFiles | None) -> grpc.StatusCode:
    async with open_channel(str(router.address), tls=tls, server_role="router") as channel:
        stub = router_pb2_grpc.RouterStub(channel)
        try:
            await stub.GetTopology(router_pb2.GetTopologyRequest(), timeout=CALL_S)
            call = stub.WatchTopology(timeout=CALL_S)
            await call.write(router_pb2.WatchTopologyRequest())
            await call.read()
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK


async def test_only_the_certificate_of_its_own_kind_joins(certificates):
    async with secured_router(certificates) as router:
        for kind, admitted in ((POOL, "expert"), (ATTENTION, "attention")):
            for role in ROLES:
                speaks = role in ("expert", "attention")
                code, details = await join_as(router, certificates[role], kind, speaks=speaks)
                wanted = grpc.StatusCode.OK if role == admitted else DENIED
                assert code is wanted, (role, kind, details)
        assert len(router.mesh.members) == 0


async def test_only_those_who_use_the_topology_watch_it(certificates):
    async with secured_router(certificates) as router:
        outcomes = {role: await watch_as(router, certificates[role]) for role in ROLES}
        allowed = {role for role, code in outcomes.items() if code is grpc.StatusCode.OK}
        assert allowed == {"gateway", "attention", "cli"}
        assert {outcomes[role] for role in ("expert", "router")} == {DENIED}


async def drain_as(router, tls: TlsFiles) -> grpc.StatusCode:
    async with open_channel(str(router.address), tls=tls, server_role="router") as channel:
        stub = router_pb2_grpc.RouterStub(channel)
        try:
            await stub.DrainPool(router_pb2.DrainPoolRequest(pool_id="a"), timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK


async def test_only_operators_drain(certificates):
    async with secured_router(certificates) as router:
        outcomes = {role: await drain_as(router, certificates[role]) for role in ROLES}
        assert outcomes.pop("cli") is grpc.StatusCode.NOT_FOUND
        assert set(outcomes.values()) == {DENIED}


async def test_plaintext_and_strangers_are_refused_before_a_frame_is_read(certificates, tmp_path):
    strangers = Authority(tmp_path / "strangers")
    stranger = strangers.issue("expert")
    # It trusts the mesh's CA, so that only the router can object.
    stranger = TlsFiles(ca=certificates["expert"].ca, cert=stranger.cert, key=stranger.key)
    async with secured_router(certificates) as router:
        for files in (None, stranger):
            assert (await join_as(router, files, POOL))[0] is UNAVAILABLE
            assert await watch_as(router, files) is UNAVAILABLE
        assert len(router.mesh.members) == 0


async def test_a_server_that_is_no_router_is_refused_by_the_client(certificates):
    flags = {
        "tls_ca": certificates["expert"].ca,
        "tls_cert": certificates["expert"].cert,
        "tls_key": certificates["expert"].key,
    }
    async with running_router(**flags) as impostor:
        assert (await join_as(impostor, certificates["expert"], POOL))[0] is UNAVAILABLE


async def test_lease_and_watcher_work_over_mtls(certificates):
    async with secured_router(certificates) as router:
        refusals: list[str] = []
        leases = [
            Lease(
                str(router.address),
                certificates[role],
                register(f"{role}-1", role=ATTENTION),
                router_pb2.MemberStatus,
                lambda assignment: None,
                refusals.append,
            )
            for role in ("attention", "gateway")
        ]
        watcher = TopologyWatcher(str(router.address), certificates["gateway"], watcher_id="gw")
        await watcher.start()
        for lease in leases:
            lease.start()
        await until(lambda: watcher.latest is not None and len(watcher.latest.attentions) == 1)
        await until(lambda: bool(refusals))
        assert "may not call this" in refusals[0]
        for lease in leases:
            lease.stop()
        await watcher.stop()
