"""Rows A9 and A10 over HTTP, limits per key, and which replica is chosen."""

import contextlib
import itertools
import threading
from typing import Any

import httpx
import openai
import pytest

from gateway.limits import Limits
from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.gateway.answers import thinking_answer
from tests.support.gateway.fake_attention import length, say
from tests.support.gateway.harness import Harness, ready_status
from tests.support.gateway.model import EOS, NAME

USER: Any = [{"role": "user", "content": "hello"}]
KEY = "the-first-key"


@pytest.fixture
def guarded(make_gateway: Any) -> Harness:
    gateway: Harness = make_gateway(api_key=(KEY, "the-second-key"), wait_ready=True)
    return gateway


class TestKeys:
    def test_a_valid_key_works_with_openais_client(
        self, guarded: Harness, tokenizer: Tokenizer
    ) -> None:
        guarded.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
        for key in (KEY, "the-second-key"):
            reply = guarded.client(api_key=key).chat.completions.create(model=NAME, messages=USER)
            assert reply.choices[0].message.content == "hi"
        with pytest.raises(openai.AuthenticationError):
            guarded.client(api_key="wrong").models.list()

    @pytest.mark.parametrize(
        "path", ["/v1/models", "/metrics", "/version", "/docs", "/openapi.json", "/nothing", "/"]
    )
    def test_everything_but_probes_needs_a_key(self, guarded: Harness, path: str) -> None:
        assert guarded.get(path).status_code == 401
        for probe in ("/livez", "/readyz", "/health"):
            assert guarded.get(probe).status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            [],
            [("authorization", "")],
            [("authorization", "Bearer wrong")],
            [("authorization", KEY)],
            [("authorization", f"Basic {KEY}")],
            [("authorization", f"Bearer {KEY}x")],
            [("authorization", "Bearer " + "k" * 15_000)],
            [("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {KEY}")],
            [("x-api-key", "wrong")],
            [("x-api-key", KEY), ("x-api-key", KEY)],
            [("x-api-key", KEY), ("authorization", "Bearer wrong")],
        ],
        ids=lambda headers: str(headers)[:50],
    )
    def test_every_failure_has_the_same_body(self, guarded: Harness, headers: Any) -> None:
        reply = guarded.get("/v1/models", headers=headers)
        assert reply.status_code == 401
        assert reply.headers["www-authenticate"] == "Bearer"
        assert reply.content == guarded.get(f"/v1/models?api_key={KEY}&key={KEY}").content

    def test_a_key_of_a_megabyte_is_refused(self, guarded: Harness) -> None:
        data = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
        with guarded.socket() as connection:
            with contextlib.suppress(OSError):
                connection.sendall(data + b"k" * 2**20 + b"\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 431")

    def test_the_body_is_not_read_without_a_key(self, guarded: Harness) -> None:
        reply = guarded.post("/v1/chat/completions", b"not json at all")
        assert reply.status_code == 401


class TestOrigins:
    @pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "10.0.0.1"])
    def test_a_foreign_host_is_403(self, gateway: Harness, host: str) -> None:
        reply = gateway.get("/v1/models", headers={"host": host})
        assert reply.status_code == 403
        assert reply.json()["error"]["code"] == "forbidden_origin"

    def test_a_foreign_origin_is_403(self, gateway: Harness) -> None:
        reply = gateway.get("/v1/models", headers={"origin": "https://evil.example"})
        assert reply.status_code == 403
        assert "access-control-allow-origin" not in reply.headers

    def test_an_allowed_origin_gets_cors_headers(self, make_gateway: Any) -> None:
        gateway = make_gateway(cors_origin=("https://app.example",), api_key=(KEY,))
        preflight = httpx.options(
            gateway.base_url + "/v1/chat/completions",
            headers={
                "origin": "https://app.example",
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization,content-type",
            },
        )
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://app.example"
        reply = gateway.get(
            "/v1/models",
            headers={"origin": "https://app.example", "authorization": f"Bearer {KEY}"},
        )
        assert reply.headers["access-control-allow-origin"] == "https://app.example"
        assert (
            gateway.get("/v1/models", headers={"origin": "https://evil.example"}).status_code == 403
        )

    def test_pages_may_call_and_read_if_a_flag_has_their_origin(self, make_gateway: Any) -> None:
        origin = "http://localhost:3000"
        gateway = make_gateway(cors_origin=(origin,))
        preflight = preflight_of(gateway, origin)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == origin
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        for reply in (
            gateway.get("/v1/models", headers={"origin": origin}),
            gateway.post("/v1/chat/completions", b"{", headers={"origin": origin}),
            gateway.get("/nowhere", headers={"origin": origin}),
        ):
            assert reply.headers["access-control-allow-origin"] == origin
            exposed = reply.headers["access-control-expose-headers"].lower().split(", ")
            assert {"x-request-id", "request-id", "retry-after"} <= set(exposed)

    def test_another_page_of_this_machine_is_foreign(self, gateway: Harness) -> None:
        assert preflight_of(gateway, "http://localhost:3000").status_code == 403
        own = gateway.get("/v1/models", headers={"origin": gateway.base_url})
        assert own.status_code == 200

    def test_a_page_can_read_that_its_key_is_wrong(self, make_gateway: Any) -> None:
        guarded = make_gateway(cors_origin=("http://localhost:3000",), api_key=(KEY,))
        reply = guarded.get("/v1/models", headers={"origin": "http://localhost:3000"})
        assert reply.status_code == 401
        assert reply.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert preflight_of(guarded, "http://localhost:3000").status_code == 200

    def test_a_page_may_send_what_anthropics_client_sends(self, make_gateway: Any) -> None:
        origin = "http://localhost:3000"
        gateway = make_gateway(cors_origin=(origin,))
        asked = "anthropic-dangerous-direct-browser-access,anthropic-version,x-api-key"
        preflight = preflight_of(gateway, origin, "/v1/messages", asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-headers"] == asked
        reply = gateway.post("/v1/messages", b"{", headers={"origin": origin})
        assert (reply.status_code, reply.json()["type"]) == (400, "error")
        assert reply.headers["access-control-allow-origin"] == origin

    def test_a_foreign_pages_preflight_is_an_error_of_ours(self, gateway: Harness) -> None:
        reply = preflight_of(gateway, "https://evil.example")
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "forbidden_origin")
        assert "access-control-allow-origin" not in reply.headers

    @pytest.mark.parametrize("host", ["0.0.0.0:8000", "host.docker.internal:8000", "a.localhost"])
    def test_local_names_are_served(self, gateway: Harness, host: str) -> None:
        assert gateway.get("/v1/models", headers={"host": host}).status_code == 200

    def test_a_host_is_allowed_by_flag(self, make_gateway: Any) -> None:
        gateway = make_gateway(allowed_host=("gpu.lan",))
        assert gateway.get("/v1/models", headers={"host": "gpu.lan:8000"}).status_code == 200
        assert gateway.get("/v1/models", headers={"host": "cpu.lan:8000"}).status_code == 403


def preflight_of(
    gateway: Harness,
    origin: str,
    path: str = "/v1/chat/completions",
    headers: str = "authorization,content-type",
) -> httpx.Response:
    return httpx.options(
        gateway.base_url + path,
        headers={
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": headers,
        },
    )


def test_requests_in_flight_are_bounded_for_each_key(make_gateway: Any) -> None:
    gateway = make_gateway(api_key=(KEY, "the-second-key"), limits=Limits(concurrent_per_key=2))
    over = threading.Event()
    pauses = iter(lambda: 0.0 if over.is_set() else 0.02, 0.0)
    gateway.script(lambda r: itertools.chain(pauses, [length(0)]))
    body = {"model": NAME, "messages": USER}
    first = {"authorization": f"Bearer {KEY}"}

    def hold() -> None:
        gateway.post("/v1/chat/completions", body, headers=first)

    threads = [threading.Thread(target=hold) for _ in range(2)]
    for thread in threads:
        thread.start()
    gateway.wait_for(lambda: gateway.fake.running == 2)
    reply = gateway.post("/v1/chat/completions", body, headers=first)
    assert reply.status_code == 429
    assert reply.headers["retry-after"]
    other = {"authorization": "Bearer the-second-key"}
    bad = gateway.post("/v1/chat/completions", {**body, "messages": []}, headers=other)
    assert bad.status_code == 400, "another key has its own places"
    over.set()
    for thread in threads:
        thread.join()
    gateway.wait_for(lambda: gateway.fake.running == 0)
    again = gateway.post("/v1/chat/completions", {**body, "messages": []}, headers=first)
    assert again.status_code == 400, "the places were not given back"


class TestReplicas:
    def test_the_least_loaded_ready_one_is_chosen(
        self, make_gateway: Any, tokenizer: Tokenizer
    ) -> None:
        gateway = make_gateway(fakes=3, poll_interval_s=0.05)
        loads = (5, 1, 0)
        for fake, load in zip(gateway.fakes, loads, strict=True):
            fake.status.waiting_sequences = load
        gateway.fakes[2].status.ready = False
        pool = gateway.service.gateway.pool
        gateway.wait_for(lambda: sorted(r.load for r in pool.replicas if r.ready) == [1, 5])
        gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
        gateway.chat()
        assert [len(fake.requests) for fake in gateway.fakes] == [0, 1, 0]

    def test_streams_between_polls_spread(self, make_gateway: Any) -> None:
        gateway = make_gateway(fakes=2)
        gateway.wait_for(lambda: all(r.ready for r in gateway.service.gateway.pool.replicas))
        gateway.script(lambda r: [0.2, *say([65])(r)])
        gateway.chat(n=8)
        assert [len(fake.requests) for fake in gateway.fakes] == [4, 4]

    def test_a_replica_that_comes_back_is_used_again(
        self, make_gateway: Any, tokenizer: Tokenizer
    ) -> None:
        gateway = make_gateway()
        gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
        gateway.service.gateway.pool.replicas[0].mark_down("a test says so", forget=True)
        assert gateway.chat().status_code == 503
        gateway.wait_for(lambda: gateway.chat().status_code == 200)

    def test_one_late_answer_to_a_poll_is_a_busy_service_three_are_none(
        self, make_gateway: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gateway = make_gateway(poll_interval_s=0.01)
        monkeypatch.setattr("gateway.generate.replica.POLL_TIMEOUT_S", 0.15)
        for late in (1, 2):
            gateway.fake.status_delay_s = 1.0
            polls = gateway.fake.polls
            gateway.wait_for(lambda polls=polls, late=late: gateway.fake.polls == polls + late)
            gateway.fake.status_delay_s = 0.0
            gateway.wait_for(lambda polls=polls: gateway.fake.polls > polls + 4)
            assert gateway.get("/readyz").status_code == 200
        gateway.fake.status_delay_s = 1.0
        gateway.wait_for(lambda: gateway.get("/readyz").status_code == 503)

    def test_one_not_ready_is_no_matter_while_another_is(self, make_gateway: Any) -> None:
        gateway = make_gateway(fakes=2, poll_interval_s=0.05)
        gateway.fakes[0].status = attention_pb2.GetStatusResponse(ready=False, not_ready_reason="x")
        gateway.wait_for(lambda: gateway.metric("attention_replicas_ready") == 1)
        assert gateway.get("/readyz").status_code == 200
        gateway.fakes[0].status = ready_status()
        gateway.wait_for(lambda: gateway.metric("attention_replicas_ready") == 2)
