"""mTLS to the attention services: the right role is served, everybody else is refused."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2, attention_pb2_grpc
from rpc.access.tls import TlsFiles, require_role, server_credentials
from tests.support.gateway.answers import thinking_answer
from tests.support.gateway.fake_attention import FakeAttention, say
from tests.support.gateway.harness import Harness, ready_status, unused_script
from tests.support.gateway.model import EOS
from tests.support.mesh_certificates import Authority


def certificate_of(context: Any) -> bytes:
    (pem,) = context.auth_context()["x509_pem_cert"]
    return pem


class GuardedAttention(FakeAttention):
    """Serves role "gateway" only, as the real service does; notes with which certificate."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.generated_for: list[bytes] = []
        self.asked_by = b""

    async def Generate(self, request, context):
        await require_role(context, ["gateway"], tls=True)
        self.generated_for.append(certificate_of(context))
        await super().Generate(request, context)

    async def GetStatus(self, request, context):
        await require_role(context, ["gateway", "cli"], tls=True)
        self.asked_by = certificate_of(context)
        return await super().GetStatus(request, context)

    async def serve_tls(self, files: TlsFiles) -> grpc.aio.Server:
        server = grpc.aio.server()
        attention_pb2_grpc.add_AttentionServicer_to_server(self, server)
        self.port = server.add_secure_port("127.0.0.1:0", server_credentials(files))
        await server.start()
        return server


def renew(old: TlsFiles, new: TlsFiles) -> None:
    """Put a new pair in the place of an old one, the key first."""
    os.replace(new.key, old.key)
    os.replace(new.cert, old.cert)


def flags(files: TlsFiles) -> dict[str, Any]:
    return {"tls_ca": files.ca, "tls_cert": files.cert, "tls_key": files.key}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def make_guarded(make_gateway: Any, loop_thread: Any) -> Any:
    """A gateway with these certificates in front of a guarded attention service."""
    servers = []

    def make(server_files: TlsFiles, **options: Any) -> tuple[Harness, GuardedAttention]:
        attention = GuardedAttention(unused_script, ready_status())
        servers.append(loop_thread.run(attention.serve_tls(server_files)))
        address = f"127.0.0.1:{attention.port}"
        gateway = make_gateway(attention=(address,), wait_ready=False, **options)
        return gateway, attention

    yield make
    for server in servers:
        loop_thread.run(server.stop(None))


def test_the_gateways_role_is_served(
    make_guarded: Any, authority: Authority, tokenizer: Tokenizer
) -> None:
    gateway, attention = make_guarded(
        authority.issue("attention"), **flags(authority.issue("gateway"))
    )
    attention.script = say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS)
    gateway.wait_for(lambda: gateway.get("/readyz").status_code == 200)
    assert gateway.chat().json()["choices"][0]["message"]["content"] == "hi"


@pytest.mark.parametrize("server_role, own_role", [("attention", "expert"), ("expert", "gateway")])
def test_a_wrong_role_on_either_side_is_never_ready(
    make_guarded: Any, authority: Authority, server_role: str, own_role: str
) -> None:
    gateway, _ = make_guarded(authority.issue(server_role), **flags(authority.issue(own_role)))
    pool = gateway.service.gateway.pool
    gateway.wait_for(
        lambda: any("known yet" not in (r.not_ready_reason or "") for r in pool.replicas)
    )
    assert gateway.get("/readyz").status_code == 503
    assert gateway.chat().status_code == 503


def test_plaintext_to_a_tls_port_is_never_ready(make_guarded: Any, authority: Authority) -> None:
    gateway, _ = make_guarded(authority.issue("attention"))
    pool = gateway.service.gateway.pool
    gateway.wait_for(
        lambda: any("known yet" not in (r.not_ready_reason or "") for r in pool.replicas)
    )
    assert gateway.chat().status_code == 503


def test_a_new_certificate_is_used_from_the_next_request_on_and_cuts_no_stream(
    make_guarded: Any, authority: Authority, tokenizer: Tokenizer
) -> None:
    server, own = authority.issue("attention"), authority.issue("gateway")
    gateway, attention = make_guarded(server, **flags(own))
    whole = say(thinking_answer(tokenizer, "hm", "before and after"), eos=EOS)
    released = threading.Event()

    def held(request: attention_pb2.GenerateRequest) -> Iterator[Any]:
        first, *rest = whole(request)
        yield first
        while not released.is_set():
            yield 0.02
        yield from rest

    attention.script = held
    gateway.wait_for(lambda: gateway.get("/readyz").status_code == 200)
    first = attention.asked_by
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(gateway.chat)
        gateway.wait_for(lambda: attention.running == 1)
        renew(server, authority.issue("attention"))
        renew(own, authority.issue("gateway"))
        gateway.wait_for(lambda: attention.asked_by != first)
        attention.script = whole
        assert gateway.chat().status_code == 200
        assert attention.running == 1
        released.set()
        before = running.result(60)
    assert before.json()["choices"][0]["message"]["content"] == "before and after"
    assert attention.cancelled == 0
    assert attention.generated_for[0] == first
    assert attention.generated_for[1] == attention.asked_by != first
