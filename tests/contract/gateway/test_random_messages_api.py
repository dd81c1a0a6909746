"""Whatever a Messages body says and the model emits: proper errors, and one answer in two forms."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.anthropic.fields import MessagesRequest
from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import thinking_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness
from tests.support.gateway.messages import THINKS, WEATHER, ask, assembled, events
from tests.support.gateway.model import EOS, NAME
from tests.support.gateway.random_bodies import (
    ANYTHING,
    SOME,
    Emission,
    emissions,
    posted,
)

TEXT = st.text(max_size=20) | st.sampled_from(["error: x", "<system-reminder>x</system-reminder>"])
IDS = st.sampled_from(["a", "b"]) | ANYTHING
TYPES = st.sampled_from(
    ["text", "thinking", "redacted_thinking", "tool_use", "tool_result", "image", "document"]
)
BLOCK = st.fixed_dictionaries(
    {"type": TYPES | ANYTHING},
    optional={
        "text": TEXT | ANYTHING,
        "thinking": ANYTHING,
        "signature": ANYTHING,
        "id": IDS,
        "name": st.just("weather") | ANYTHING,
        "input": st.just({"place": "x"}) | ANYTHING,
        "tool_use_id": IDS,
        "is_error": st.booleans() | ANYTHING,
        "content": TEXT | ANYTHING | st.lists(st.fixed_dictionaries({"type": TYPES, "text": TEXT})),
        "source": ANYTHING,
        "cache_control": ANYTHING,
    },
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]) | ANYTHING},
    optional={"content": TEXT | st.lists(BLOCK | ANYTHING, max_size=4) | ANYTHING},
)
TOOL = st.fixed_dictionaries(
    {},
    optional={
        "type": st.just("custom") | ANYTHING,
        "name": st.sampled_from(["weather", "b"]) | ANYTHING,
        "description": ANYTHING,
        "input_schema": st.just({"type": "object"}) | ANYTHING,
        "strict": ANYTHING,
    },
)
CHOICE = st.fixed_dictionaries(
    {"type": st.sampled_from(["auto", "any", "tool", "none"]) | ANYTHING},
    optional={"name": st.just("weather") | ANYTHING, "disable_parallel_tool_use": ANYTHING},
)
FORMAT = st.fixed_dictionaries({"type": st.just("json_schema")}, optional={"schema": ANYTHING})
OTHERS = sorted({*MessagesRequest.model_fields, "betas"} - {"stream", "messages", "model"})
BODY = st.builds(
    lambda some, known: {"model": NAME, "max_tokens": 9, **some, **known},
    st.dictionaries(st.sampled_from(OTHERS), ANYTHING, max_size=2),
    st.fixed_dictionaries(
        {"messages": st.lists(MESSAGE, max_size=5) | ANYTHING},
        optional={
            "system": TEXT | st.lists(BLOCK, max_size=2) | ANYTHING,
            "tools": st.lists(TOOL | ANYTHING, max_size=2) | ANYTHING,
            "tool_choice": CHOICE | ANYTHING,
            "thinking": st.fixed_dictionaries({"type": st.just("enabled") | ANYTHING}) | ANYTHING,
            "output_config": st.fixed_dictionaries({"format": FORMAT | ANYTHING}) | ANYTHING,
            "metadata": st.fixed_dictionaries({"user_id": ANYTHING}) | ANYTHING,
        },
    ),
)


@pytest.fixture
def gateway(make_gateway: Any, roomy_options: dict[str, Any]) -> Harness:
    gateway: Harness = make_gateway(**roomy_options, restore_thinking="always")
    return gateway


@SOME
@given(BODY, st.sampled_from(["/v1/messages", "/v1/messages/count_tokens"]))
def test_every_body_has_a_proper_answer(
    gateway: Harness, tokenizer: Tokenizer, body: dict[str, Any], path: str
) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    reply = posted(gateway, path, body)
    told = reply.json()
    if reply.status_code == 200:
        assert "input_tokens" in told if path.endswith("count_tokens") else told["content"]
        return
    assert reply.status_code in (400, 404), reply.text
    assert set(told) == {"type", "error", "request_id"}
    assert (told["type"], told["request_id"]) == ("error", reply.headers["request-id"])
    assert set(told["error"]) == {"type", "message"}
    assert len(reply.content) < 2000


def said(message: dict[str, Any]) -> dict[str, Any]:
    """What does not differ from answer to answer."""
    for block in message["content"]:
        block.pop("id", None)
    return {key: message[key] for key in ("content", "stop_reason", "stop_sequence", "usage")}


def is_unfinished(stream: list[dict[str, Any]], index: int) -> bool:
    """Whether a streamed call's input is no JSON, as of one that a limit cut."""
    parts = [
        event["delta"]["partial_json"]
        for event in stream
        if event["type"] == "content_block_delta"
        and event["index"] == index
        and "partial_json" in event["delta"]
    ]
    try:
        json.loads("".join(parts))
    except ValueError:
        return True
    return False


@SOME
@given(
    emission=emissions(),
    options=st.fixed_dictionaries(
        {},
        optional={
            "thinking": st.just(THINKS) | st.just({**THINKS, "display": "omitted"}),
            "stop_sequences": st.just(["STOP"]),
            "tools": st.just([WEATHER]),
            "tool_choice": st.just({"type": "auto", "disable_parallel_tool_use": True}),
        },
    ),
)
def test_streamed_and_whole_answers_say_the_same(
    gateway: Harness,
    tokenizer: Tokenizer,
    emission: Emission,
    options: dict[str, Any],
) -> None:
    gateway.script(emission.script(tokenizer))
    reply = ask(gateway, **options)
    assert reply.status_code == 200, reply.text
    whole = reply.json()
    stream = events(ask(gateway, stream=True, **options).text)
    for event in stream:  # of a call that a limit cut, the rest of its input is missing
        if event["type"] == "content_block_start" and is_unfinished(stream, event["index"]):
            event["content_block"]["cut"] = event["content_block"]["type"] == "tool_use"
    message = assembled([one for one in stream if not is_cut_delta(stream, one)])
    blocks = [block for block in message["content"] if not block.pop("cut", False)]
    assert said({**message, "content": blocks}) == said(whole)


def is_cut_delta(stream: list[dict[str, Any]], event: dict[str, Any]) -> bool:
    return (
        event["type"] == "content_block_delta"
        and "partial_json" in event["delta"]
        and is_unfinished(stream, event["index"])
    )
