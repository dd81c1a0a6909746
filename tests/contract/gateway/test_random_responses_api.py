"""Whatever a Responses body says and the model emits: proper errors, one answer in two forms."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.responses.fields import ResponsesRequest
from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import invoke, thinking_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import END_OF_TOOL_CALL, EOS, NAME, TOOL_CALL
from tests.support.gateway.random_bodies import (
    ANYTHING,
    PIECES,
    SOME,
    Emission,
    emissions,
    posted,
)
from tests.support.gateway.responses import (
    AGENTS,
    PATCH,
    WEATHER,
    ask,
    assembled,
    events,
    without_ids,
)

TEXT = st.text(max_size=20)
PART = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["input_text", "output_text", "reasoning_text", "input_image"])
        | ANYTHING
    },
    optional={"text": TEXT | ANYTHING, "image_url": ANYTHING, "refusal": ANYTHING},
)
CONTENT = TEXT | st.lists(PART | ANYTHING, max_size=3) | ANYTHING
ITEM = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            [
                *("message", "reasoning", "function_call", "function_call_output"),
                *("custom_tool_call", "custom_tool_call_output", "item_reference"),
                *("web_search_call", "local_shell_call", "local_shell_call_output", "compaction"),
            ]
        )
        | ANYTHING
    },
    optional={
        "role": st.sampled_from(["user", "assistant", "system", "developer"]) | ANYTHING,
        "content": CONTENT,
        "summary": CONTENT,
        "encrypted_content": st.just("em1.AAAA") | ANYTHING,
        "id": st.sampled_from(["msg_1", "rs_\0"]) | ANYTHING,
        "call_id": st.sampled_from(["a", "b"]) | ANYTHING,
        "name": st.sampled_from(["weather", "ask", "patch"]) | ANYTHING,
        "namespace": st.just("agents") | ANYTHING,
        "arguments": st.just('{"place": "x"}') | ANYTHING,
        "input": TEXT | ANYTHING,
        "output": CONTENT,
        "action": ANYTHING,
    },
)
TOOL = st.fixed_dictionaries(
    {"type": st.sampled_from(["function", "custom", "namespace", "mcp"]) | ANYTHING},
    optional={
        "name": st.sampled_from(["weather", "b"]) | ANYTHING,
        "description": TEXT | ANYTHING,
        "parameters": st.just({"type": "object"}) | ANYTHING,
        "strict": ANYTHING,
        "format": st.fixed_dictionaries(
            {"type": st.just("grammar") | ANYTHING},
            optional={"syntax": st.just("lark") | ANYTHING, "definition": TEXT | ANYTHING},
        )
        | ANYTHING,
        "tools": st.just([WEATHER, PATCH]) | ANYTHING,
    },
)
CHOICE = st.sampled_from(["auto", "none", "required"]) | st.fixed_dictionaries(
    {"type": st.sampled_from(["function", "custom", "allowed_tools", "mcp"]) | ANYTHING},
    optional={
        "name": st.just("weather") | ANYTHING,
        "mode": st.sampled_from(["auto", "required"]) | ANYTHING,
        "tools": st.just([{"type": "function", "name": "weather"}]) | ANYTHING,
    },
)
OTHERS = sorted({*ResponsesRequest.model_fields, "extra"} - {"stream", "input", "model"})
BODY = st.builds(
    lambda some, known: {"model": NAME, "max_output_tokens": 9, **some, **known},
    st.dictionaries(st.sampled_from(OTHERS), ANYTHING, max_size=2),
    st.fixed_dictionaries(
        {"input": TEXT | st.lists(ITEM, max_size=6) | ANYTHING},
        optional={
            "instructions": TEXT | ANYTHING,
            "tools": st.just([WEATHER, AGENTS, PATCH]) | st.lists(TOOL | ANYTHING, max_size=2),
            "tool_choice": CHOICE | ANYTHING,
            "text": st.fixed_dictionaries({"format": ANYTHING}) | ANYTHING,
            "include": st.just(["reasoning.encrypted_content"]) | ANYTHING,
            "metadata": st.dictionaries(TEXT, TEXT, max_size=2) | ANYTHING,
        },
    ),
)


@pytest.fixture
def gateway(make_gateway: Any, roomy_options: dict[str, Any], tmp_path: Path) -> Harness:
    store = str(tmp_path / "responses.sqlite")
    gateway: Harness = make_gateway(
        **roomy_options, restore_thinking="always", response_store=store
    )
    return gateway


@SOME
@given(BODY, st.sampled_from(["/v1/responses", "/v1/responses/input_tokens"]))
def test_every_body_has_a_proper_answer(
    gateway: Harness, tokenizer: Tokenizer, body: dict[str, Any], path: str
) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    reply = posted(gateway, path, body)
    told = reply.json()
    if reply.status_code == 200:
        if path.endswith("input_tokens"):
            assert "input_tokens" in told
        else:
            assert told["output"] or told["background"]
            assert gateway.get(f"/v1/responses/{told['id']}").status_code == (
                200 if told["store"] else 404
            )
        return
    assert reply.status_code in (400, 404), reply.text
    assert set(told["error"]) == {"type", "message", "param", "code"}
    assert len(reply.content) < 2000


OUR_CALLS = st.sampled_from(
    [
        invoke("agents.ask", place="x"),
        invoke("patch", input='"a"\\\n\u00e9\U0001f600\\u00e9\\ud83d\\ude00'),
        invoke("patch", other="x"),
        invoke("patch"),
        '<invoke name="patch">\n<parameter name="input">{"input": "x',
    ]
)
ALL_PIECES = PIECES | st.builds(
    lambda before, calls, after: [*before, TOOL_CALL, *calls, END_OF_TOOL_CALL, *after],
    PIECES,
    st.lists(OUR_CALLS, min_size=1, max_size=2),
    PIECES,
)


@SOME
@given(
    emission=emissions(ALL_PIECES),
    options=st.fixed_dictionaries(
        {},
        optional={
            "include": st.just(["message.output_text.logprobs"]),
            "tools": st.just([WEATHER, AGENTS, PATCH]),
            "parallel_tool_calls": st.just(False),
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
    streamed = assembled(events(ask(gateway, stream=True, **options).text))
    assert without_ids(streamed) == without_ids(reply.json())
