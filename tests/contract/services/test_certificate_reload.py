"""New certificates while calls run: running calls go on, new ones use the new certificates."""

import asyncio
import shutil
from pathlib import Path

import grpc
import pytest

from expertmesh.certs import add_ca, cert_path, create_mesh_certificates, drop_ca, key_path, renew
from protos import router_pb2
from rpc.access.tls import TlsFiles
from rpc.channel import open_channel
from rpc.mesh.lease import Lease
from rpc.mesh.topology import TopologyWatcher
from tests.support.router_svc.harness import (
    ATTENTION,
    Joined,
    offer,
    register,
    running_router,
    stub_of,
    until,
)


class Hosts:
    """The files of a mesh, and each host's copy of its own."""

    def __init__(self, folder: Path, *members: str):
        self.source, self.folder = folder / "source", folder
        create_mesh_certificates(self.source, days=30, members=members)

    def copy(self, name: str, what: tuple[str, ...] = ("ca", "pair")) -> TlsFiles:
        """Bring a host up to date."""
        host = self.folder / name
        host.mkdir(exist_ok=True)
        if "ca" in what:
            shutil.copy(cert_path(self.source, "ca"), host / "ca.pem")
        if "pair" in what:
            shutil.copy(key_path(self.source, name), host / "key.pem")
            shutil.copy(cert_path(self.source, name), host / "cert.pem")
        return TlsFiles(ca=host / "ca.pem", cert=host / "cert.pem", key=host / "key.pem")


def secured(files: TlsFiles) -> dict[str, Path]:
    return {"tls_ca": files.ca, "tls_cert": files.cert, "tls_key": files.key}


async def code_of_join(stub, member_id: str, **fields) -> tuple[grpc.StatusCode, str]:
    stream = Joined(stub)
    await stream.say(register(member_id, offer=offer(), **fields))
    try:
        await stream.hear("welcome")
    except (grpc.aio.AioRpcError, AssertionError):
        return await stream.outcome()
    await stream.say(router_pb2.JoinRequest(leave=router_pb2.Leave()))
    return await stream.outcome()


async def test_a_members_certificate_is_for_that_member_alone(tmp_path):
    hosts = Hosts(tmp_path, "expert/east", "expert/west")
    assert not cert_path(hosts.source, "expert").exists()
    east, west = hosts.copy("expert-east"), hosts.copy("expert-west")
    async with (
        running_router(**secured(hosts.copy("router"))) as router,
        stub_of(router, east) as of_east,
        stub_of(router, west) as of_west,
    ):
        live = Joined(of_west)
        await live.say(register("west", offer=offer()))
        await live.hear("welcome")
        code, details = await code_of_join(of_east, "west", incarnation=9)
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert "is for east, not for 'west'" in details
        assert (await code_of_join(of_east, "east"))[0] is grpc.StatusCode.OK
        waiting = Joined(of_west)
        await waiting.say(register("west", incarnation=9, offer=offer()))
        await waiting.hear("welcome")  # it may be that member: it waits
        assert [member.incarnation for member in router.mesh.members] == [1]


async def test_a_certificate_without_a_name_takes_no_live_members_place(tmp_path):
    hosts = Hosts(tmp_path)
    async with (
        running_router(**secured(hosts.copy("router"))) as router,
        stub_of(router, hosts.copy("expert")) as stub,
    ):
        live = Joined(stub)
        await live.say(register("west", offer=offer()))
        await live.hear("welcome")
        code, details = await code_of_join(stub, "west", incarnation=9)
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "live member" in details


async def test_only_the_attention_service_itself_watches_in_its_name(tmp_path):
    hosts = Hosts(tmp_path, "attention/a1", "attention/a2")
    async with running_router(**secured(hosts.copy("router"))) as router:
        for host, wanted in (
            ("attention-a1", grpc.StatusCode.OK),
            ("attention-a2", grpc.StatusCode.PERMISSION_DENIED),
            ("gateway", grpc.StatusCode.PERMISSION_DENIED),
        ):
            async with stub_of(router, hosts.copy(host)) as stub:
                call = stub.WatchTopology(timeout=60)
                await call.write(router_pb2.WatchTopologyRequest(watcher_id="a1", role=ATTENTION))
                if wanted is grpc.StatusCode.OK:
                    assert (await call.read()).topology
                    call.cancel()
                else:
                    with pytest.raises(grpc.aio.AioRpcError):
                        await call.read()
                    assert await call.code() is wanted


async def test_a_ca_is_changed_step_by_step_while_streams_run(tmp_path):
    hosts = Hosts(tmp_path)
    files = {name: hosts.copy(name) for name in ("router", "attention", "gateway")}
    refusals: list[str] = []
    async with running_router(**secured(files["router"])) as router:
        lease = Lease(
            str(router.address),
            files["attention"],
            register("a1", role=ATTENTION),
            router_pb2.MemberStatus,
            lambda assignment: None,
            refusals.append,
        )
        lease.start()
        watcher = TopologyWatcher(str(router.address), files["gateway"], watcher_id="gw")
        await watcher.start()
        await until(lambda: lease.joined and watcher.connected)
        first = next(iter(router.mesh.members))

        async def everybody_connects() -> None:
            for name in ("attention", "gateway"):
                async with stub_of(router, files[name]) as stub:
                    await stub.GetTopology(router_pb2.GetTopologyRequest(), timeout=60)

        for step, what in ((add_ca, ("ca",)), (None, ("ca", "pair")), (drop_ca, ("ca",))):
            if step is None:
                renew(hosts.source, days=30)
            else:
                step(hosts.source)
            for name in ("gateway", "router", "attention"):
                hosts.copy(name, what)
                await everybody_connects()
        assert next(iter(router.mesh.members)) is first  # its stream was never cut
        assert watcher.connected
        assert not refusals
        await asyncio.to_thread(lease.stop)
        await watcher.stop()


async def test_one_that_only_the_old_ca_vouches_for_is_refused_in_the_end(tmp_path):
    hosts = Hosts(tmp_path)
    router_files = hosts.copy("router")
    stale = hosts.copy("gateway")
    async with running_router(**secured(router_files)) as router:
        add_ca(hosts.source)
        renew(hosts.source, days=30)
        drop_ca(hosts.source)
        hosts.copy("router")
        async with stub_of(router, stale) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.GetTopology(router_pb2.GetTopologyRequest(), timeout=60)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


def spoil(certificate: Path, key: Path) -> None:
    certificate.write_text("-----BEGIN CERTIFICATE-----")
    key.write_text("nonsense")


async def test_a_broken_new_file_is_logged_once_and_the_old_one_serves(tmp_path, caplog):
    hosts = Hosts(tmp_path)
    router_files, gateway = hosts.copy("router"), hosts.copy("gateway")
    gateway.pems.get()
    async with running_router(**secured(router_files)) as router:
        spoil(router_files.cert, gateway.key)
        for _ in range(2):
            router._reload()
            gateway.pems.reload()
            async with open_channel(
                str(router.address), tls=gateway, server_role="router"
            ) as channel:
                await channel.channel_ready()
        told = [line for line in caplog.messages if "the new files are not used" in line]
        assert len(told) == 2  # each of the two once
