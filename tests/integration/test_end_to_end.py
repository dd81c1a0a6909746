"""A chat request through real processes: gateway, router, attention, two pools, the demo model.

The official openai client is the oracle of shapes, reference.py of tokens.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from attention_svc.config import BLOCK_SIZE
from moe_model.chat.template import ChatTemplate
from moe_model.reference import ReferenceModel
from moe_model.text.tokenizer import Tokenizer
from moe_model.weights.checkpoint import Checkpoint
from tests.support.mesh import ServiceProcess
from tests.support.places import DEMO_MODEL
from tests.support.served_model import PYTHON_TOOL, Served, serve, stripes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from serve(tmp_path_factory.mktemp("state") / "epoch")


@pytest.fixture
def served_alone(tmp_path: Path) -> Iterator[Served]:
    """A cluster of its own, for tests that break it."""
    yield from serve(tmp_path / "epoch")


@pytest.mark.parametrize(
    "question", ["What is 4783 + 2959?", "How many r's are in strawberry?", "你好"]
)
def test_greedy_answer_equals_the_reference_token_for_token(served: Served, question: str) -> None:
    tokenizer, template = Tokenizer.load(DEMO_MODEL), ChatTemplate.load(DEMO_MODEL)
    checkpoint = Checkpoint.open(DEMO_MODEL)
    prompt = tokenizer.encode_segments(
        template.render([{"role": "user", "content": question}], None)
    )
    stop = frozenset(checkpoint.config.eos_token_ids)
    tokens = ReferenceModel(checkpoint).greedy(prompt, 200, stop)
    text = tokenizer.decode(tokens[:-1] if tokens[-1] in stop else tokens)
    thinking, _, answer = text.partition("</think>")

    reply = served.client.chat.completions.create(
        model=served.model,
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=200,
    )
    message = reply.choices[0].message
    assert message.reasoning_content == thinking.strip("\n")
    assert message.content == answer.strip("\n")
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == len(prompt)
    assert reply.usage.completion_tokens == len(tokens)


def test_stream_adds_up_to_the_whole_answer(served: Served) -> None:
    request = {
        "model": served.model,
        "temperature": 0,
        "max_tokens": 200,
        "messages": [{"role": "user", "content": "What is 12 + 30?"}],
    }
    whole = served.client.chat.completions.create(**request).choices[0].message
    reasoning, content, finish, usage = "", "", [], None
    stream = served.client.chat.completions.create(
        **request, stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            content += choice.delta.content or ""
            finish += [choice.finish_reason] if choice.finish_reason else []
    assert (reasoning, content) == (whole.reasoning_content, whole.content)
    assert finish == ["stop"]
    assert usage is not None
    assert usage.completion_tokens > 0


def test_tool_is_called_with_valid_arguments_and_its_result_is_used(served: Served) -> None:
    messages: list = [{"role": "user", "content": "What is 482913 * 771204?"}]
    reply = served.client.chat.completions.create(
        model=served.model, messages=messages, tools=[PYTHON_TOOL], temperature=0, max_tokens=300
    )
    assert reply.choices[0].finish_reason == "tool_calls"
    message = reply.choices[0].message
    assert message.tool_calls
    call = message.tool_calls[0]
    assert call.function.name == "python_executor"
    assert "482913" in json.loads(call.function.arguments)["code"]
    messages.append(message.model_dump(exclude_none=True))
    product = str(482913 * 771204)
    messages.append({"role": "tool", "tool_call_id": call.id, "content": product})
    final = served.client.chat.completions.create(
        model=served.model, messages=messages, tools=[PYTHON_TOOL], temperature=0, max_tokens=300
    )
    assert product in (final.choices[0].message.content or "")


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_loop_finds_its_first_turn_in_the_prefix_cache(served: Served, stream: bool) -> None:
    """All but the last, unfinished block: the returned answer has the ids that were emitted."""
    messages: list = [{"role": "user", "content": f"What is 482917 * {771209 + stream}?"}]
    ask = {"model": served.model, "tools": [PYTHON_TOOL], "temperature": 0, "max_tokens": 300}
    reply = served.client.chat.completions.create(messages=messages, **ask)
    message, usage = reply.choices[0].message, reply.usage
    assert message.tool_calls
    assert usage is not None
    messages.append(message.model_dump(exclude_none=True))
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "12"}
    if stream:
        *_, last = served.client.chat.completions.create(
            messages=[*messages, result], **ask, stream=True, stream_options={"include_usage": True}
        )
    else:
        last = served.client.chat.completions.create(messages=[*messages, result], **ask)
    assert last.usage.prompt_tokens_details.cached_tokens >= usage.total_tokens - BLOCK_SIZE


def test_seeded_request_repeats_itself(served: Served) -> None:
    def ask(seed: int) -> str:
        return (
            served.client.completions.create(
                model=served.model,
                prompt="zq xv",
                temperature=2.0,
                top_p=1.0,
                seed=seed,
                max_tokens=16,
                extra_body={"top_k": 0},
            )
            .choices[0]
            .text
        )

    assert ask(1) == ask(1)
    assert len({ask(seed) for seed in range(4)}) > 1


def test_timings_say_where_the_time_went(served: Served) -> None:
    reply = served.client.chat.completions.create(
        model=served.model,
        messages=[{"role": "user", "content": "Who are you?"}],
        extra_body={"expertmesh_timings": True},
    )
    timings = reply.model_extra["expertmesh_timings"]
    assert timings["pool_compute_ms"] > 0
    assert timings["network_ms"] > 0
    assert timings["total_ms"] >= timings["first_token_ms"] > 0


def test_metrics_of_every_service_move_with_a_request(served: Served) -> None:
    served.client.chat.completions.create(
        model=served.model, messages=[{"role": "user", "content": "Hi"}]
    )

    def scrape(url: str) -> str:
        return httpx.get(url + "/metrics").text

    gateway = scrape(served.url)
    attention = scrape(f"http://{served.mesh.attention.ops_address}")
    pool = scrape(f"http://{served.mesh.pools[0].ops_address}")
    assert "expertmesh_ttft_seconds_count" in gateway
    assert 'expertmesh_expert_activations_total{expert="0",layer="0"}' in attention
    assert 'expertmesh_expert_rpc_seconds_count{part="network"' in attention
    assert "expertmesh_expert_rpc_inflight{pool=" in attention
    assert 'expertmesh_pool_compute_seconds_count{phase="decode"}' in pool


def test_resident_memory_is_within_the_budget(served: Served) -> None:
    config = Checkpoint.open(DEMO_MODEL).config
    pool_weights = 4 * config.expert_params * config.num_pieces // 2
    attention_weights = 4 * config.attention_params
    for pool in served.mesh.pools:
        assert anonymous_bytes(pool) <= 1.05 * pool_weights + 320e6
    attention = anonymous_bytes(served.mesh.attention)
    assert attention <= 1.05 * (attention_weights + 64 * 2**20) + 400e6


def anonymous_bytes(service: ServiceProcess) -> int:
    """Anonymous resident memory of a process."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon"))
    print(service.module, line)
    return int(line.split()[1]) * 1024


def test_the_only_holder_dies_and_comes_back_under_a_stream(served_alone: Served) -> None:
    """The stream waits and goes on; readiness is false meanwhile, and new requests are told so."""
    served = served_alone
    stream = served.client.chat.completions.create(
        model=served.model,
        messages=[{"role": "user", "content": "What is 1234 + 4321?"}],
        stream=True,
        max_tokens=200,
        temperature=0,
        extra_body={"ignore_eos": True},
        timeout=60,
        stream_options={"include_usage": True},
    )
    iterator = iter(stream)
    for _ in range(5):
        next(iterator)
    served.mesh.pools[1].kill()
    served.wait_ready(False)
    with pytest.raises(openai.InternalServerError) as refused:
        served.client.chat.completions.create(
            model=served.model, messages=[{"role": "user", "content": "Hi"}]
        )
    assert refused.value.status_code == 503
    assert refused.value.response.headers["retry-after"]
    served.mesh.start_pool(*stripes()[1], "--pool-id", "replacement").wait_listening()
    served.wait_ready(True)
    *_, last = iterator
    assert last.usage is not None
    assert last.usage.completion_tokens == 200
    reply = served.client.chat.completions.create(
        model=served.model,
        messages=[{"role": "user", "content": "What is 12 + 30?"}],
        temperature=0,
    )
    assert "42" in (reply.choices[0].message.content or "")


def test_log_likelihoods_of_a_prompt_are_the_references(served: Served):
    """As lm-eval asks for them: token ids, echo, one alternative, one token."""
    ids = Tokenizer.load(DEMO_MODEL).encode_text(
        "What is 12 + 30? The answer is 42, of course. " * 12
    )
    answer = served.client.completions.create(
        model=served.model,
        prompt=[ids, ids[:7]],
        echo=True,
        logprobs=1,
        max_tokens=1,
        temperature=0,
    )
    logits = ReferenceModel(Checkpoint.open(DEMO_MODEL)).logits(ids)
    logprobs_TV = logits.log_softmax(dim=-1)
    for choice, prompt in zip(answer.choices, (ids, ids[:7]), strict=True):
        told = choice.logprobs
        assert told is not None
        assert told.token_logprobs is not None
        assert told.top_logprobs is not None
        assert len(told.token_logprobs) == len(prompt) + 1
        assert told.token_logprobs[0] is None
        for position in range(1, len(prompt)):
            row_V = logprobs_TV[position - 1]
            logprob = told.token_logprobs[position]
            assert logprob == pytest.approx(float(row_V[prompt[position]]), abs=2e-3)
            (best,) = told.top_logprobs[position].values()
            assert best == pytest.approx(float(row_V.max()), abs=2e-3)
            assert (best == logprob) == (int(row_V.argmax()) == prompt[position])
