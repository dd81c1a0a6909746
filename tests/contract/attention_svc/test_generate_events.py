"""Generate: events, refusals, deadlines, resumption."""

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import pytest

from attention_svc.engine.layer_stack import StepLogits
from attention_svc.experts.transport import ExpertsUnavailable
from protos import attention_pb2
from tests.support.attention_svc.generate_harness import (
    CONTEXT,
    EOS,
    VOCAB,
    WAIT_S,
    Heard,
    heard,
    reference,
    request,
    running_service,
    stub_of,
    until,
)
from tests.support.mesh_certificates import Authority

NAN = float("nan")


async def status_of(stub: Any, message: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await heard(stub, message)
    return error.value.code(), error.value.details() or ""


async def test_greedy_tokens_are_the_references_and_the_end_comes_once():
    prompts = [[3 + i, 9, 4 * i + 5] * (1 + 5 * i) for i in range(4)]
    async with running_service() as service, stub_of(service) as stub:
        calls = [heard(stub, request(prompt, max_tokens=12)) for prompt in prompts]
        results = await asyncio.gather(*calls)
        assert service.idle
    for prompt, result in zip(prompts, results, strict=True):
        assert result.tokens == reference().greedy(prompt, 12, frozenset())
        assert result.reason == "LENGTH"
        assert result.finished is not None
        assert result.finished.usage.prompt_tokens == len(prompt)
        assert result.finished.usage.generated_tokens == 12


async def test_a_stop_id_is_the_last_token_and_named():
    greedy = reference().greedy([5, 6, 7], 30, frozenset())
    stop = greedy[6]
    length = greedy.index(stop) + 1
    async with running_service() as service, stub_of(service) as stub:
        result = await heard(stub, request(max_tokens=30, stop_token_ids=[stop]))
        assert result.reason == "STOP"
        assert result.finished is not None
        assert result.finished.stop_token_id == stop
        assert result.tokens == greedy[:length]
        biased = request(max_tokens=5, ignore_eos=False)
        biased.sampling.logit_bias.add(token_id=EOS, bias=100)
        assert (await heard(stub, biased)).tokens == [EOS]
        biased.sampling.min_tokens = 3
        held_back = await heard(stub, biased)
        assert held_back.tokens.index(EOS) == 3
        biased.sampling.ignore_eos = True
        assert (await heard(stub, biased)).reason == "LENGTH"


PENALISED = {"repetition_penalty": 1.3, "frequency_penalty": 0.5}


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"temperature": 1.0, "seed": 11},
        {"temperature": 0.8, "seed": 5, "top_p": 0.9, **PENALISED},
    ],
)
async def test_a_resumed_request_goes_on_with_the_same_tokens(sampling: dict[str, Any]):
    """After any prefix: penalties, random numbers, indexes and usage are unchanged."""
    async with running_service() as service, stub_of(service) as stub:
        whole = await heard(stub, request(max_tokens=16, **sampling))
        assert len(whole.tokens) == 16
        for cut in (1, 7, 15):
            rest = await heard(stub, request(None, whole.tokens[:cut], max_tokens=16, **sampling))
            assert rest.tokens == whole.tokens[cut:]
            assert rest.finished is not None
            usage = rest.finished.usage
            assert (usage.prompt_tokens, usage.generated_tokens) == (3, 16)
            assert usage.cached_tokens >= 2  # all but the last prompt token, at least


REFUSED: dict[str, tuple[attention_pb2.GenerateRequest, str]] = {
    "no prompt": (request([]), "prompt_token_ids"),
    "a prompt as long as the context": (request([5] * CONTEXT), "prompt_token_ids"),
    "an id beyond the vocabulary": (request([VOCAB]), "token ids"),
    "an id of 2^32-1": (request([2**32 - 1]), "token ids"),
    "an emitted id beyond the vocabulary": (request([5], [VOCAB]), "token ids"),
    "everything emitted already": (request([5], [6] * 10), "emitted_token_ids"),
    "more tokens than the context has room for": (request(max_tokens=CONTEXT), "max_tokens"),
    "max_tokens of 2^32-1": (request(max_tokens=2**32 - 1), "max_tokens"),
    "temperature": (request(temperature=3.0), "temperature"),
    "temperature NaN": (request(temperature=NAN), "temperature"),
    "top_p": (request(top_p=0.0), "top_p"),
    "repetition_penalty": (request(repetition_penalty=0.0), "repetition_penalty"),
    "min_tokens": (request(min_tokens=11), "min_tokens"),
    "stop id": (request(stop_token_ids=[VOCAB]), "token id"),
    "top_logprobs": (request(logprobs=True, top_logprobs=21), "top_logprobs"),
    "no sampling": (attention_pb2.GenerateRequest(prompt_token_ids=[5]), "top_p"),
}


async def test_invalid_fields_are_invalid_argument_by_name():
    async with running_service() as service, stub_of(service) as stub:
        for name, (message, field) in REFUSED.items():
            code, details = await status_of(stub, message)
            assert code is grpc.StatusCode.INVALID_ARGUMENT, name
            assert field in details, name
            assert len(details) < 300
        assert service.idle
        assert (await heard(stub, request())).reason == "LENGTH"


async def test_the_whole_context_can_be_used():
    async with running_service() as service, stub_of(service) as stub:
        result = await heard(stub, request([5] * (CONTEXT - 4), max_tokens=4))
        assert len(result.tokens) == 4


async def test_what_exceeds_the_whole_cache_is_refused_at_admission():
    async with running_service() as service, stub_of(service) as stub:
        service.blocks._free[:] = service.blocks._free[:4]
        service.blocks.num_blocks = 4  # 32 positions
        code, details = await status_of(stub, request([5] * 30, max_tokens=10))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "KV cache" in details


async def test_a_full_queue_is_resource_exhausted_at_once():
    async with running_service(max_running=1, max_waiting=2) as service, stub_of(service) as stub:
        service.transport.gate.clear()
        admitted = [asyncio.create_task(heard(stub, request(max_tokens=2)))]
        await until(lambda: service.engine.scheduler.running)
        admitted += [asyncio.create_task(heard(stub, request(max_tokens=2))) for _ in range(2)]
        await until(lambda: len(service.engine.scheduler.waiting) == 2)
        code, details = await status_of(stub, request())
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "try again" in details
        status = await stub.GetStatus(attention_pb2.GetStatusRequest(), timeout=WAIT_S)
        assert (status.running_sequences, status.waiting_sequences) == (1, 2)
        assert status.waiting_prompt_tokens == 6
        service.transport.gate.set()
        assert [(await call).reason for call in admitted] == ["LENGTH"] * 3


async def test_not_ready_is_unavailable_with_the_reason():
    async with running_service() as service, stub_of(service) as stub:
        service.transport.is_ready = (False, "no pool serves 3 pieces")
        code, details = await status_of(stub, request())
        assert (code, details) == (grpc.StatusCode.UNAVAILABLE, "no pool serves 3 pieces")
        status = await stub.GetStatus(attention_pb2.GetStatusRequest(), timeout=WAIT_S)
        assert (status.ready, status.not_ready_reason) == (False, "no pool serves 3 pieces")
        service.transport.is_ready = (True, "")
        assert (await heard(stub, request())).reason == "LENGTH"


async def test_a_deadline_is_a_terminal_event_that_frees_the_blocks():
    async with running_service() as service, stub_of(service) as stub:
        service.transport.delay_s = 0.02
        result = await heard(stub, request(max_tokens=100, timeout_ms=300))
        assert result.reason == "DEADLINE"
        assert result.finished is not None
        assert result.finished.retryable
        assert 0 < len(result.tokens) < 100
        assert result.finished.usage.generated_tokens == len(result.tokens)
        await service.until_idle()


async def test_the_servers_own_deadline_holds_when_the_request_names_none():
    async with running_service(request_timeout_s=0.2) as service, stub_of(service) as stub:
        service.transport.gate.clear()
        result = await heard(stub, request())
        assert (result.reason, result.tokens) == ("DEADLINE", [])
        service.transport.gate.set()
        await service.until_idle()


async def test_without_any_deadline_a_request_waits_for_as_long_as_its_caller_does():
    async with running_service(request_timeout_s=0.0) as service, stub_of(service) as stub:
        service.transport.gate.clear()
        call = stub.Generate(request(), timeout=0.5)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call.read()
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # the caller's own, not ours
        service.transport.gate.set()
        await service.until_idle()


async def test_the_deadline_counts_while_the_grammar_waits_to_be_compiled():
    async with running_service() as service, stub_of(service) as stub:
        service.servicer._grammars = Compiling()
        grammar = attention_pb2.Grammar(kind=attention_pb2.GRAMMAR_KIND_LARK, text="start: /a/")
        result = await heard(stub, request(grammar=grammar, timeout_ms=100))
        assert (result.reason, result.tokens) == ("DEADLINE", [])


class Compiling:
    """Grammars that are never done."""

    async def start(self, *args: Any, **fields: Any) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None: ...


async def test_a_deadline_of_2_to_the_64_is_served():
    async with running_service() as service, stub_of(service) as stub:
        assert (await heard(stub, request(timeout_ms=2**64 - 1))).reason == "LENGTH"


async def test_experts_that_are_gone_end_the_step_with_a_retryable_error():
    async with running_service() as service, stub_of(service) as stub:
        service.transport.delay_s = 0.01
        running = [asyncio.create_task(heard(stub, request(max_tokens=60))) for _ in range(3)]
        await until(lambda: service.transport.steps > 5)
        service.transport.failure = ExpertsUnavailable("pool x failed in mid-call")
        for call in running:
            result = await call
            assert result.reason == "ERROR"
            assert result.finished is not None
            assert result.finished.retryable
            assert "experts are unavailable" in result.finished.error
        await service.until_idle()
        service.transport.failure = None
        assert (await heard(stub, request())).reason == "LENGTH"


async def cached_tokens(stub: Any, message: Any) -> int:
    finished = (await heard(stub, message)).finished
    assert finished is not None
    return finished.usage.cached_tokens


async def test_usage_counts_the_prompt_tokens_that_were_not_computed():
    prompt = list(range(5, 25))
    async with running_service() as service, stub_of(service) as stub:
        choices = [request(prompt, choice_idx=i, temperature=1.0, seed=3) for i in range(3)]
        first = await asyncio.gather(*(cached_tokens(stub, choice) for choice in choices))
        assert sorted(first) == [0, 19, 19]
        assert await cached_tokens(stub, request([*prompt[:17], 60, 61])) == 16
        assert await cached_tokens(stub, request(prompt, cache_salt="other tenant")) == 0
        await service.until_idle()
        registry = service.engine._metrics.registry
        counted = {
            part: registry.get_sample_value(f"expertmesh_prefix_cache_{part}_tokens_total")
            for part in ("queries", "hits")
        }
        assert counted == {"queries": 4 * 20 + 19, "hits": 19 + 19 + 16}
    async with running_service(prefix_cache=False) as service, stub_of(service) as stub:
        for _ in range(2):
            assert await cached_tokens(stub, request(prompt)) == 0


async def test_a_bug_in_a_step_fails_its_requests_and_the_engine_goes_on():
    async with running_service() as service, stub_of(service) as stub:
        service.transport.failure = RuntimeError("secret")
        result = await heard(stub, request())
        assert result.reason == "ERROR"
        assert result.finished is not None
        assert not result.finished.retryable
        assert "secret" not in result.finished.error
        service.transport.failure = None
        assert (await heard(stub, request())).reason == "LENGTH"


async def test_logits_of_nan_end_that_request_only(monkeypatch):
    """One sequence's fault, marked by its prompt's last token, in a batch of three."""
    async with running_service() as service, stub_of(service) as stub:
        stack = service.engine._stack
        forward = stack.forward

        async def faulty(meta: Any, *rest: Any) -> StepLogits:
            found = await forward(meta, *rest)
            logits_BV = found.logits_BV.clone()
            logits_BV[meta.token_ids_T[meta.logit_rows_B] == 63] = NAN
            return replace(found, logits_BV=logits_BV)

        monkeypatch.setattr(stack, "forward", faulty)
        ban = dict.fromkeys(range(60, 64), -100.0)
        messages = [request([9, 4]), request([9, 63]), request([8, 4])]
        for message in (messages[0], messages[2]):
            for token_id, bias in ban.items():
                message.sampling.logit_bias.add(token_id=token_id, bias=bias)
        results = await asyncio.gather(*(heard(stub, message) for message in messages))
        assert [result.reason for result in results] == ["LENGTH", "ERROR", "LENGTH"]
        assert "NaN" in results[1].finished.error
        assert results[1].tokens == []


async def test_every_token_masked_is_an_error_not_a_random_token():
    message = request()
    for token_id in range(VOCAB):
        message.sampling.logit_bias.add(token_id=token_id, bias=-100)
    async with running_service() as service, stub_of(service) as stub:
        result = await heard(stub, message)
        assert (result.reason, result.tokens) == ("ERROR", [])


async def test_logprobs_and_timings_come_when_asked_for():
    async with running_service() as service, stub_of(service) as stub:
        message = request(logprobs=True, top_logprobs=2, report_timings=True)
        finished = None
        async for response in stub.Generate(message, timeout=WAIT_S):
            if response.WhichOneof("event") == "finished":
                finished = response.finished
                continue
            assert len(response.tokens.logprobs) == len(response.tokens.token_ids)
            for token_id, entry in zip(
                response.tokens.token_ids, response.tokens.logprobs, strict=True
            ):
                assert entry.top_token_ids[0] == token_id  # greedy
                assert entry.logprob == entry.top_logprobs[0] < 0
        assert finished is not None
        timings = finished.timings
        assert timings.steps == 10
        assert 0 < timings.first_token_ms <= timings.total_ms
        parts = timings.attention_ms + timings.pool_compute_ms + timings.sampling_ms
        assert 0 < parts <= timings.total_ms


@pytest.mark.parametrize(
    "role, allowed",
    [("gateway", True), ("cli", False), ("expert", False), ("attention", False), ("router", False)],
)
async def test_only_gateways_may_generate(tmp_path, role: str, allowed: bool):
    mesh = Authority(tmp_path)
    async with running_service(tls=mesh.issue("attention")) as service:
        async with stub_of(service, mesh.issue(role)) as stub:
            if allowed:
                assert (await heard(stub, request())).reason == "LENGTH"
            else:
                assert (await status_of(stub, request()))[0] is grpc.StatusCode.PERMISSION_DENIED
                assert service.engine.num_tokens == 0
        async with stub_of(service) as plain:
            assert (await status_of(plain, request()))[0] is grpc.StatusCode.UNAVAILABLE


def test_the_listener_itself_notices_wrong_streams():
    listener = Heard()
    listener.take(attention_pb2.GenerateResponse(tokens={"index": 0, "token_ids": [1]}))
    with pytest.raises(AssertionError):
        listener.take(attention_pb2.GenerateResponse(tokens={"index": 2, "token_ids": [1]}))
