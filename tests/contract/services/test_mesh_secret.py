"""A mesh without certificates whose callers must know a secret."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos import attention_pb2, expert_pb2, router_pb2, router_pb2_grpc
from rpc.access.secret import HEADER, MeshSecret, write_secret
from rpc.channel import open_channel, open_sync_channel
from rpc.config import Address
from rpc.mesh.topology import TopologyWatcher
from rpc.process.server import GrpcHost
from tests.support.router_svc.harness import running_router, stub_of, until

SERVICES = [
    service
    for file in (router_pb2, attention_pb2, expert_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
]
METHODS = [method for service in SERVICES for method in service.methods]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "secret"
    write_secret(path)
    return path


class Everything(grpc.GenericRpcHandler):
    """Answers every method of the mesh; notes which were reached."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    def service(self, details):
        found = next((one for one in METHODS if path_of(one) == details.method), None)
        if found is None:
            return None

        async def one(request, context):
            self.reached.append(details.method)
            return b""

        async def many(request, context):
            self.reached.append(details.method)
            yield b""

        kind = f"{shape(found)}_rpc_method_handler"
        return getattr(grpc, kind)(many if found.server_streaming else one)


def shape(method) -> str:
    sides = (method.client_streaming, method.server_streaming)
    return "_".join("stream" if streams else "unary" for streams in sides)


def path_of(method) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


async def silence() -> AsyncIterator[bytes]:
    """Send nothing: a failed write to a server that refuses would hide its status."""
    await asyncio.Event().wait()
    yield b""


async def outcome(channel, method, metadata=(), *, refused=False) -> grpc.StatusCode:
    request = b""
    if method.client_streaming:
        request = silence() if refused else iter([b""])
    call = getattr(channel, shape(method))(path_of(method))(request, timeout=20, metadata=metadata)
    try:
        if method.server_streaming:
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return await call.code()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
async def test_every_method_wants_the_secret_before_its_servicer_hears_of_the_call(
    path, tmp_path, method
):
    write_secret(tmp_path / "other")
    secret, other = MeshSecret(path), MeshSecret(tmp_path / "other")
    host = GrpcHost(Address(host="127.0.0.1", port=0), tls=None, secret=secret, reflection=True)
    everything = Everything()
    host.server.add_generic_rpc_handlers((everything,))
    await host.start([])
    proof = secret.proof(path_of(method))
    try:
        for access, shown in (
            (None, ()),
            (other, ()),
            (None, ((HEADER, "0.0"),)),
            (None, ((HEADER, path.read_text().strip()),)),
            (None, ((HEADER, proof), (HEADER, proof))),
            (other, ((HEADER, proof),)),
        ):
            async with open_channel(str(host.address), tls=access, server_role="router") as channel:
                code = await outcome(channel, method, shown, refused=True)
                assert code is grpc.StatusCode.UNAUTHENTICATED
        assert not everything.reached
        async with open_channel(str(host.address), tls=secret, server_role="router") as channel:
            assert await outcome(channel, method) is grpc.StatusCode.OK
        assert everything.reached == [path_of(method)]
    finally:
        await host.stop(0)


async def test_probes_need_no_secret_and_reflection_does(path):
    secret = MeshSecret(path)
    host = GrpcHost(Address(host="127.0.0.1", port=0), tls=None, secret=secret, reflection=True)
    await host.start([])
    try:
        async with open_channel(str(host.address), tls=None, server_role="router") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            await health.Check(health_pb2.HealthCheckRequest(), timeout=20)
            assert await reflects(channel) is grpc.StatusCode.UNAUTHENTICATED
        async with open_channel(str(host.address), tls=secret, server_role="router") as channel:
            assert await reflects(channel) is grpc.StatusCode.OK
    finally:
        await host.stop(0)


async def reflects(channel) -> grpc.StatusCode:
    """A server resets the stream of an unknown method behind its status; on a busy machine gRPC
    may see the reset first, and says INTERNAL: then it is asked again.
    """
    for _ in range(5):
        code = await reflects_once(channel)
        if code is not grpc.StatusCode.INTERNAL:
            break
    return code


async def reflects_once(channel) -> grpc.StatusCode:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    try:
        async for answer in stub.ServerReflectionInfo(iter([request]), timeout=20):
            assert answer.list_services_response.service
            return grpc.StatusCode.OK
    except grpc.aio.AioRpcError as error:
        return error.code()
    raise AssertionError("no answer")


async def test_reflection_is_off_unless_asked_for():
    for asked, wanted in ((False, grpc.StatusCode.UNIMPLEMENTED), (True, grpc.StatusCode.OK)):
        async with (
            running_router(reflection=asked) as router,
            open_channel(str(router.address), tls=None, server_role="router") as channel,
        ):
            assert await reflects(channel) is wanted


async def test_threads_and_watchers_show_the_secret_too(path):
    secret = MeshSecret(path)
    async with running_router(secret_file=path) as router:
        watcher = TopologyWatcher(str(router.address), secret, watcher_id="test")
        await watcher.start()
        await until(lambda: watcher.connected)
        await watcher.stop()

        def ask() -> int:
            with open_sync_channel(
                str(router.address), tls=secret, server_role="router"
            ) as channel:
                stub = router_pb2_grpc.RouterStub(channel)
                request = router_pb2.GetTopologyRequest()
                return stub.GetTopology(request, timeout=20).topology.version.epoch

        assert await asyncio.to_thread(ask) == router.mesh.epoch


async def test_a_caller_with_another_secret_is_told_which_flag_it_lacks(path):
    async with running_router(secret_file=path) as router, stub_of(router) as stub:
        with pytest.raises(grpc.aio.AioRpcError, match="--secret-file"):
            await stub.GetTopology(router_pb2.GetTopologyRequest(), timeout=20)
