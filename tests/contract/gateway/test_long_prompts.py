"""Rows D3 and D6: the context boundary is exact, and what is far beyond it costs little."""

import asyncio
import threading
import time
from typing import Any

import pytest

from gateway.limits import Limits
from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import thinking_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness, ready_status
from tests.support.gateway.model import EOS, write_tiny_model
from tests.support.gateway.refusals import USER, error_of


@pytest.fixture
def gateway_4k(make_gateway: Any, tmp_path: Any) -> Harness:
    folder = write_tiny_model(tmp_path / "model_4k", context=4096)
    gateway: Harness = make_gateway(model_folder=folder, status=ready_status(4096))
    return gateway


def prompt_of(gateway: Harness, num_tokens: int) -> str:
    reply = gateway.post("/tokenize", {"messages": [{"role": "user", "content": "z"}]})
    return "z" * (num_tokens - reply.json()["count"] + 1)


def test_the_context_boundary_is_exact(gateway_4k: Harness, tokenizer: Tokenizer) -> None:
    gateway_4k.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    fits = prompt_of(gateway_4k, 4095)
    reply = gateway_4k.chat(messages=[{"role": "user", "content": fits}])
    assert reply.status_code == 200, reply.text
    usage = reply.json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (4095, 1)
    error = error_of(gateway_4k.chat(messages=[{"role": "user", "content": fits + "z"}]))
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
    assert "4096" in error["message"]


@pytest.mark.parametrize(
    "text",
    [" " * 3_000_000, "a" * 1_000_000, "e" + "\u0301" * 500_000],
    ids=["spaces", "word", "marks"],
)
def test_far_too_long_is_refused_by_its_length(gateway_4k: Harness, text: str) -> None:
    started_s = time.process_time()
    error = error_of(gateway_4k.chat(messages=[{"role": "user", "content": text}]))
    assert error["code"] == "context_length_exceeded"
    assert time.process_time() - started_s < 5


def test_fifty_megabytes_are_413(gateway_4k: Harness) -> None:
    body = b'{"model": "tiny-m2", "prompt": "' + b" " * 50_000_000 + b'"}'
    error_of(gateway_4k.post("/v1/completions", body), 413)


def test_4097_messages_are_refused_and_4096_tool_results_are_linear(gateway_4k: Harness) -> None:
    error = error_of(gateway_4k.chat(messages=USER * 4097))
    assert error["param"] == "messages"
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    results = [{"role": "tool", "content": "x"}] * 4094
    started_s = time.process_time()
    error = error_of(gateway_4k.chat(messages=[*USER, call, *results]))
    assert error["code"] == "context_length_exceeded"
    assert time.process_time() - started_s < 10


def test_tokenising_that_takes_too_long_is_refused(make_gateway: Any) -> None:
    gateway = make_gateway(limits=Limits(tokenise_inline_chars=0, tokenise_timeout_s=0.05))
    original = gateway.service.gateway.model.template.render

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.3)
        return original(*arguments, **options)

    gateway.service.gateway.model.template.render = slow
    error = error_of(gateway.chat())
    assert error["code"] == "prompt_too_long"


def test_the_event_loop_lives_while_a_long_prompt_is_tokenised(
    make_gateway: Any, tmp_path: Any
) -> None:
    folder = write_tiny_model(tmp_path / "model_long", context=3_000_000)
    gateway = make_gateway(model_folder=folder, status=ready_status(3_000_000))
    body = {"prompt": "the thing said hello to everything in the hall " * 10_000}
    gone: list[Any] = []
    worker = threading.Thread(target=lambda: gone.append(gateway.post("/tokenize", body)))
    worker.start()
    answered = 0
    while worker.is_alive():
        assert gateway.get("/livez").status_code == 200
        answered += 1
    assert gone[0].status_code == 200
    assert gone[0].json()["count"] > 100_000
    assert answered > 3, "nobody was answered meanwhile"


def test_places_in_the_queue_are_given_back_however_soon_the_work_is_done(
    gateway: Harness,
) -> None:
    encoder = gateway.service.gateway.encoder

    async def many() -> int:
        for _ in range(200):
            await encoder._run("messages", lambda: None, 10**6, "a client")
        async with asyncio.timeout(20):
            while encoder.threads._slots.num_running:
                await asyncio.sleep(0.01)
        return encoder.threads._slots.num_running

    assert gateway.run(many()) == 0


def test_messages_that_cannot_fit_are_refused_before_they_are_rendered(
    gateway: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("rendered")

    monkeypatch.setattr(gateway.service.gateway.model.template, "render", unreachable)
    error = error_of(gateway.chat(messages=[{"role": "user", "content": "x" * 1_000_000}]))
    assert error["code"] == "context_length_exceeded"
