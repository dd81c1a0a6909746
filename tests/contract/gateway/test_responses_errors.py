"""The Responses API over HTTP: what is refused, left out or failed, and in which words."""

from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.limits import Limits
from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.gateway.answers import invoke, thinking_answer, tool_answer
from tests.support.gateway.fake_attention import ended, say, tokens
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS, ROOMY_CONTEXT
from tests.support.gateway.responses import AGENTS, PATCH, WEATHER, ask, assembled, events

IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
REGEX = {"type": "grammar", "syntax": "regex"}


@pytest.fixture
def gateway(roomy_gateway: Harness) -> Harness:
    return roomy_gateway


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "other"}, 404, "model"),
        ({"input": None}, 400, "input"),
        ({"input": []}, 400, "input"),
        ({"input": 5}, 400, "input"),
        ({"input": [5]}, 400, "input[0]"),
        ({"input": [{"role": "robot", "content": "x"}]}, 400, "input[0].role"),
        ({"input": [{"role": "user", "content": [IMAGE]}]}, 400, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": 5}]}, 400, "input[0].content"),
        ({"input": [{"type": 5}]}, 400, "input[0].type"),
        ({"input": [{"type": "item_reference", "id": 5}]}, 400, "input[0].id"),
        ({"instructions": 5}, 400, "instructions"),
        ({"tools": [5]}, 400, "tools[0]"),
        ({"tools": [{"name": "f"}]}, 400, "tools[0].type"),
        ({"tools": [{"type": "function", "name": "a b"}]}, 400, "tools[0].name"),
        ({"tools": [{"type": "mcp"}, WEATHER, WEATHER]}, 400, "tools[2].name"),
        ({"tools": [{**AGENTS, "tools": 5}]}, 400, "tools[0].tools"),
        ({"tools": [{**AGENTS, "name": ""}]}, 400, "tools[0].name"),
        ({"tools": [{**AGENTS, "tools": [{"type": "function"}]}]}, 400, "tools[0].tools[0].name"),
        ({"tools": [{**PATCH, "format": {"type": "grammar"}}]}, 400, "tools[0].format"),
        (
            {"tools": [{**PATCH, "format": {**REGEX, "definition": "a\nb"}}]},
            400,
            "tools[0].format.definition",
        ),
        (
            {"tools": [{**PATCH, "format": {**REGEX, "definition": ""}}]},
            400,
            "tools[0].format.definition",
        ),
        ({"tool_choice": "required"}, 400, "tool_choice"),
        ({"tool_choice": "sometimes"}, 400, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "f"}}, 400, "tool_choice.name"),
        ({"tool_choice": {"type": "web_search"}}, 400, "tool_choice.type"),
        ({"tool_choice": {"type": "allowed_tools"}}, 400, "tool_choice"),
        (
            {"tool_choice": {"type": "allowed_tools", "mode": "required", "tools": []}},
            400,
            "tool_choice.tools",
        ),
        ({"text": {"format": {"type": "yaml"}}}, 400, "text.format"),
        ({"text": {"format": {"type": "json_schema", "schema": 5}}}, 400, "text.format.schema"),
        ({"max_output_tokens": 0}, 400, "max_output_tokens"),
        ({"temperature": 9}, 400, "temperature"),
        ({"truncation": "some"}, 400, "truncation"),
        ({"metadata": {"a": 5}}, 400, "metadata.a"),
        ({"metadata": {str(i): "" for i in range(17)}}, 400, "metadata"),
        ({"prompt": {"id": "x"}}, 400, "prompt"),
        ({"background": True}, 400, "background"),
        ({"previous_response_id": "resp_1"}, 400, "previous_response_id"),
        ({"conversation": "conv_1"}, 400, "conversation"),
    ],
)  # fmt: skip
def test_errors_name_the_field_in_openais_shape(
    gateway: Harness, fields: dict[str, Any], status: int, param: str
) -> None:
    reply = ask(gateway, **fields)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (status, param), error
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("text", ["x " * (ROOMY_CONTEXT // 2), "x" * ROOMY_CONTEXT * 40])
def test_an_input_that_is_too_long_has_the_code_that_agents_know(
    gateway: Harness, text: str, stream: bool
) -> None:
    reply = ask(gateway, input=text, stream=stream)
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_service_is_a_429(gateway: Harness, stream: bool) -> None:
    gateway.script(lambda request: [(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")])
    reply = ask(gateway, stream=stream)
    assert (reply.status_code, reply.json()["error"]["type"]) == (429, "rate_limit_error")
    assert reply.headers["retry-after"]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "rate_limit_exceeded"),
        (grpc.StatusCode.INTERNAL, "server_error"),
    ],
)
def test_what_fails_before_the_first_event_is_still_a_whole_stream(
    make_gateway: Any, status: grpc.StatusCode, code: str
) -> None:
    gateway: Harness = make_gateway(limits=Limits(early_error_wait_s=0.05))
    gateway.script(lambda request: [0.4, (status, "no")])
    stream = events(ask(gateway, stream=True).text)
    assert [event["type"] for event in stream] == [
        *("response.created", "response.in_progress", "error", "response.failed"),
    ]
    assert stream[-2]["code"] == stream[-1]["response"]["error"]["code"] == code


def test_a_stream_that_breaks_ends_as_failed_and_keeps_what_was_said(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    ids = thinking_answer(tokenizer, "hm", "half of it")
    broken = ended(attention_pb2.FINISH_REASON_ERROR, "broke")
    gateway.script(lambda request: [tokens(0, ids), 0.3, broken])
    response = events(ask(gateway, stream=True).text)[-1]["response"]
    assert response["status"] == "failed"
    assert "broke" in response["error"]["message"]
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]
    assert response["output"][1]["content"][0]["text"].startswith("half of")


def test_a_call_that_an_error_cut_is_no_item(gateway: Harness, tokenizer: Tokenizer) -> None:
    ids = tool_answer(tokenizer, invoke("patch", input="half of it"))[:-14]
    broken = ended(attention_pb2.FINISH_REASON_ERROR, "broke")
    gateway.script(lambda request: [tokens(0, ids), 0.3, broken])
    stream = events(ask(gateway, stream=True, tools=[PATCH]).text)
    assert [item["type"] for item in assembled(stream)["output"]] == ["reasoning"]


def test_pictures_of_the_past_and_of_tools_are_left_out_with_a_word(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    reply = ask(
        gateway,
        input=[
            {"role": "user", "content": [IMAGE]},
            {"type": "function_call", "call_id": "a", "name": "view_image", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": [IMAGE]},
        ],
    )
    assert reply.status_code == 200, reply.text
    prompt = tokenizer.decode(gateway.fake.requests[-1].prompt_token_ids)
    assert prompt.count("[input_image: left out") == 2


SEALED = {"include": ["reasoning.encrypted_content"]}
FIRST_KEY, SECOND_KEY = "0123456789abcdef" * 2, "fedcba9876543210" * 2


@pytest.fixture
def make_roomy(make_gateway: Any, roomy_options: dict[str, Any]) -> Any:
    return partial(make_gateway, **roomy_options)


def sealed(reply: Any) -> str:
    (content,) = [
        item["encrypted_content"] for item in reply.json()["output"] if item["type"] == "reasoning"
    ]
    return str(content)


def reads(gateway: Harness, content: str, **options: Any) -> bool:
    """Whether the model is shown what is in it; a warning says so if not."""
    thinking = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": content}
    call = {"type": "function_call", "call_id": "a", "name": "weather", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "a", "output": "sun"}
    reply = ask(gateway, tools=[WEATHER], input=[thinking, call, result], **options)
    assert reply.status_code == 200, reply.text
    prompt = bytes(i for i in gateway.fake.requests[-1].prompt_token_ids if i < 256)
    is_read = b"secret" in prompt
    note = "input[0].encrypted_content: cannot be read here, the thinking was left out"
    assert reply.json()["warnings"] == ([] if is_read else [note])
    return is_read


def test_thinking_comes_back_sealed(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "secret", "x"), eos=EOS))
    assert sealed(ask(gateway)) == "None"
    content = sealed(ask(gateway, **SEALED))
    assert reads(gateway, content)
    middle = len(content) // 2
    flipped = content[:middle] + ("A" if content[middle] != "A" else "B") + content[middle + 1 :]
    for other in (flipped, content[:-8], "em1.", "em1.\u00e9", "x", content[4:], "A" * 60):
        assert not reads(gateway, other)
    assert len({sealed(ask(gateway, **SEALED)) for _ in range(3)}) == 3


def test_sealed_thinking_is_bound_to_the_key(make_roomy: Any, tokenizer: Tokenizer) -> None:
    keys = ("the-first-key-of-all", "the-second-key-of-all")
    gateway: Harness = make_roomy(api_key=keys, restore_thinking="off")
    mine, other = ({"authorization": f"Bearer {key}"} for key in keys)
    gateway.script(say(thinking_answer(tokenizer, "secret", "x"), eos=EOS))
    content = sealed(ask(gateway, headers=mine, **SEALED))
    assert reads(gateway, content, headers=mine)
    assert not reads(gateway, content, headers=other)


def test_gateways_with_one_key_file_read_each_others(
    make_roomy: Any, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for path, text in ((old, FIRST_KEY), (new, f"{SECOND_KEY}\n{FIRST_KEY}")):
        path.write_text(text + "\n")
        path.chmod(0o600)
    first: Harness = make_roomy(reasoning_key_file=old)
    second: Harness = make_roomy(reasoning_key_file=new)
    stranger: Harness = make_roomy()
    for one in (first, second, stranger):
        one.script(say(thinking_answer(tokenizer, "secret", "x"), eos=EOS))
    content = sealed(ask(first, **SEALED))
    assert [reads(one, content) for one in (first, second, stranger)] == [True, True, False]
    assert not reads(first, sealed(ask(second, **SEALED)))


@pytest.mark.parametrize(
    ("text", "mode"), [(FIRST_KEY, 0o640), (FIRST_KEY[:31], 0o600), ("", 0o600)]
)
def test_a_bad_key_file_is_told(make_gateway: Any, tmp_path: Path, text: str, mode: int) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(ValueError, match="--reasoning-key-file"):
        make_gateway(reasoning_key_file=path)
