"""Who may call Execute when mTLS is on? Strangers are refused before a frame is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from protos import expert_pb2, expert_pb2_grpc
from rpc.access.tls import TlsFiles, role_name
from rpc.channel import open_channel
from rpc.config import CHANNEL_OPTIONS
from tests.support.expert_svc.execute_harness import (
    WAIT_S,
    Caller,
    calling,
    expected_sums,
    rows_of,
    running_pool,
)
from tests.support.mesh_certificates import DAY, Authority


@pytest.fixture
def mesh(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def secure_channel(address: str, files: TlsFiles | None, ca: Path) -> grpc.aio.Channel:
    """As rpc.channel dials, but also with files that it refuses to read."""
    pair = (files.key.read_bytes(), files.cert.read_bytes()) if files else (None, None)
    credentials = grpc.ssl_channel_credentials(ca.read_bytes(), *pair)
    options = (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", role_name("expert")))
    return grpc.aio.secure_channel(address, credentials, options=options)


async def refused(channel: grpc.aio.Channel) -> grpc.StatusCode:
    """The status that ends a stream; it must come before any frame of the pool."""
    async with channel:
        caller = Caller(expert_pb2_grpc.ExpertPoolStub(channel).Execute(timeout=WAIT_S))
        # Nothing is written: the refusal does not wait for a frame.
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await caller.read()
        return error.value.code()


async def test_an_attention_certificate_is_served(mesh: Authority):
    async with running_pool(tls=mesh.issue("expert")) as pool:
        async with calling(pool.address, tls=mesh.issue("attention")) as caller:
            assert torch.equal(rows_of(await caller.result_of(caller.call())), expected_sums())


@pytest.mark.parametrize("role", ["gateway", "expert", "router", "cli"])
async def test_another_role_is_denied_and_the_served_caller_lives_on(mesh: Authority, role: str):
    async with running_pool(tls=mesh.issue("expert")) as pool:
        async with calling(pool.address, tls=mesh.issue("attention")) as other:
            channel = open_channel(pool.address, tls=mesh.issue(role), server_role="expert")
            assert await refused(channel) is grpc.StatusCode.PERMISSION_DENIED
            assert not [s for s in pool.servicer.streams if s.caller_id != "test"]
            assert (await other.result_of(other.call())).call_id == 1


STRANGERS: dict[str, Callable[[Authority], Any]] = {
    "no certificate": lambda mesh: None,
    "expired": lambda mesh: mesh.issue("attention", start=-2 * DAY, end=-DAY),
    "not yet valid": lambda mesh: mesh.issue("attention", start=DAY, end=2 * DAY),
    "self-signed": lambda mesh: mesh.issue("attention", self_signed=True),
    "another authority": lambda mesh: Authority(mesh.folder, "other").issue("attention"),
}


@pytest.mark.parametrize("name", STRANGERS)
async def test_a_certificate_the_mesh_does_not_vouch_for_is_refused(mesh: Authority, name: str):
    async with running_pool(tls=mesh.issue("expert")) as pool:
        channel = secure_channel(pool.address, STRANGERS[name](mesh), mesh.path)
        assert await refused(channel) is grpc.StatusCode.UNAVAILABLE
        assert not pool.servicer.streams
        async with calling(pool.address, tls=mesh.issue("attention")) as other:
            assert (await other.result_of(other.call())).call_id == 1


async def test_plaintext_to_a_tls_port_is_refused(mesh: Authority):
    async with running_pool(tls=mesh.issue("expert")) as pool:
        channel = open_channel(pool.address, tls=None, server_role="expert")
        assert await refused(channel) is grpc.StatusCode.UNAVAILABLE


async def test_a_server_of_another_role_is_refused_by_the_caller(mesh: Authority):
    """A stranger on a reused port: the caller checks the server's role too."""
    async with running_pool(tls=mesh.issue("gateway")) as pool:
        channel = open_channel(pool.address, tls=mesh.issue("attention"), server_role="expert")
        assert await refused(channel) is grpc.StatusCode.UNAVAILABLE


async def test_describe_pool_is_for_the_mesh_only(mesh: Authority):
    async with running_pool(tls=mesh.issue("expert")) as pool:
        for role, code in (("cli", None), ("gateway", grpc.StatusCode.PERMISSION_DENIED)):
            async with open_channel(
                pool.address, tls=mesh.issue(role), server_role="expert"
            ) as channel:
                call = expert_pb2_grpc.ExpertPoolStub(channel).DescribePool(
                    expert_pb2.DescribePoolRequest(), timeout=WAIT_S
                )
                assert await call.code() is (code or grpc.StatusCode.OK)
