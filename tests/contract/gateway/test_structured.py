"""response_format and tool_choice become grammars (rows E1, E4)."""

import json
from typing import Any

import grpc
import pytest

from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.gateway.answers import WEATHER, invoke, thinking_answer, tool_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import (
    END_OF_THINK,
    END_OF_TOOL_CALL,
    EOS,
    TOOL_CALL,
)

OTHER = {"type": "function", "function": {"name": "other", "parameters": {}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.fixture
def roomy(roomy_gateway: Harness) -> Harness:
    roomy_gateway.script(say([END_OF_THINK, 65], eos=EOS))
    return roomy_gateway


def grammar_for(gateway: Harness, **fields: Any) -> str | None:
    """The grammar that the attention service got."""
    reply = gateway.chat(**fields)
    assert reply.status_code == 200, reply.text
    request = gateway.fake.requests[-1]
    if not request.HasField("grammar"):
        return None
    assert request.grammar.kind == attention_pb2.GRAMMAR_KIND_LARK
    assert request.end_of_thinking_id == END_OF_THINK
    return str(request.grammar.text)


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def json_schema(schema: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, **fields}}


def test_a_schema_reaches_the_sampler_strict_or_lenient(roomy: Harness) -> None:
    strict = grammar_for(roomy, response_format=json_schema(SCHEMA, strict=True))
    assert strict is not None
    assert json.dumps(SCHEMA)[1:-1] in strict
    assert '"lenient": false' in strict
    lenient = grammar_for(
        roomy, response_format=json_schema({**SCHEMA, "x-guidance": {"lenient": 5}})
    )
    assert lenient == strict.replace('"lenient": false', '"lenient": true')
    anything = grammar_for(roomy, response_format={"type": "json_object"})
    assert anything is not None
    assert '{"type": "object", ' in anything


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"response_format": None},
        {"response_format": {"type": "text"}},
        {"tools": [WEATHER]},
        {"tools": [WEATHER], "tool_choice": "auto"},
        {"tools": [WEATHER], "tool_choice": "none"},
        {"tool_choice": "auto"},
    ],
    ids=str,
)
def test_free_text_needs_no_grammar(roomy: Harness, fields: dict[str, Any]) -> None:
    assert grammar_for(roomy, **fields) is None


def test_forced_calls(roomy: Harness) -> None:
    tools = [WEATHER, OTHER]
    required = grammar_for(roomy, tools=tools, tool_choice="required")
    assert required is not None
    assert f"<[{TOOL_CALL}]>" in required
    assert f"<[{END_OF_TOOL_CALL}]>" in required
    assert f"next: <[{END_OF_TOOL_CALL}]> | invoke" in required.splitlines()
    assert "json:" not in required
    one = grammar_for(roomy, tools=tools, tool_choice="required", parallel_tool_calls=False)
    assert one is not None
    assert f"next: <[{END_OF_TOOL_CALL}]>" in one.splitlines()
    weather = grammar_for(roomy, tools=tools, tool_choice=named("weather"))
    assert weather is not None
    assert '"<invoke name=\\"weather\\">' in weather
    assert "other\\" not in weather
    assert f"next: <[{END_OF_TOOL_CALL}]>" in weather.splitlines()
    # The tools are still offered, and a forced call wins over a format.
    assert "other" in decoded_prompt(roomy)
    both = grammar_for(
        roomy, tools=tools, tool_choice="required", response_format={"type": "json_object"}
    )
    assert both == required


def decoded_prompt(gateway: Harness) -> str:
    tokenizer = gateway.service.gateway.model.tokenizer
    return tokenizer.decode(gateway.fake.requests[-1].prompt_token_ids)


def test_a_json_answer_may_be_a_call_when_tools_are_on_offer(roomy: Harness) -> None:
    fields = {"tools": [WEATHER], "response_format": {"type": "json_object"}}
    either = grammar_for(roomy, **fields)
    assert either is not None
    assert "json:" in either
    assert "calls:" in either
    neither = grammar_for(roomy, **fields, tool_choice="none")
    assert neither is not None
    assert "calls:" not in neither


def test_a_forced_call_is_answered_as_a_call(roomy: Harness, tokenizer: Tokenizer) -> None:
    # The service stops by itself, without a stop id, when nothing may follow.
    roomy.script(
        say([END_OF_THINK, *tool_answer(tokenizer, invoke("weather", place="P"))[1:]], eos=EOS)
    )
    choice = roomy.chat(tools=[WEATHER], tool_choice=named("weather")).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"place": "P"}


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


SCHEMA_PARAM = "response_format.json_schema.schema"


@pytest.mark.parametrize(
    "fields, param",
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        ({"tool_choice": "any", "tools": [WEATHER]}, "tool_choice"),
        ({"tool_choice": 5, "tools": [WEATHER]}, "tool_choice"),
        ({"tool_choice": {"type": "function"}, "tools": [WEATHER]}, "tool_choice"),
        ({"tool_choice": named("weather") | {"type": "custom"}, "tools": [WEATHER]}, "tool_choice"),
        ({"tool_choice": named("absent"), "tools": [WEATHER]}, "tool_choice"),
        ({"tool_choice": named("weather")}, "tool_choice"),
        ({"tool_choice": named("weather"), "tools": [5, WEATHER]}, "tools[0]"),
        ({"response_format": "text"}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_object", "schema": {}}}, "response_format.schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}}, SCHEMA_PARAM),
        ({"response_format": json_schema({}, name="a b")}, "response_format.json_schema.name"),
        ({"response_format": json_schema({}, strict="yes")}, "response_format.json_schema.strict"),
        ({"response_format": json_schema(deep(33))}, SCHEMA_PARAM),
        ({"response_format": json_schema({"enum": ["x" * 9] * 20_000})}, SCHEMA_PARAM),
        ({"response_format": json_schema({"const": "x" * 2**20})}, SCHEMA_PARAM),
    ],
    ids=lambda value: str(value)[:60],
)
def test_bad_values_are_400_naming_the_field(
    gateway: Harness, fields: dict[str, Any], param: str
) -> None:
    reply = gateway.chat(**fields)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param


def test_an_enum_of_100_000_is_400(gateway: Harness) -> None:
    reply = gateway.chat(response_format=json_schema({"enum": [str(i) for i in range(100_000)]}))
    assert reply.status_code == 400


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fields, param",
    [
        ({"response_format": json_schema(SCHEMA)}, SCHEMA_PARAM),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [WEATHER], "tool_choice": "required"}, "tools"),
    ],
)
def test_a_refused_grammar_names_the_field_it_came_from(
    roomy: Harness, fields: dict[str, Any], param: str, stream: bool
) -> None:
    refusal = (grpc.StatusCode.INVALID_ARGUMENT, "grammar: Unknown format: x")
    # Longer than an ordinary refusal takes: it is compiled first.
    roomy.script(lambda request: [0.3, refusal])
    reply = roomy.chat(**fields, stream=stream)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["param"] == param
    assert error["message"] == f"{param}: Unknown format: x"


def test_a_completion_may_be_json_by_response_format(roomy: Harness, tokenizer: Tokenizer) -> None:
    roomy.script(say(tokenizer.encode_text('{"zebra": 1}'), eos=EOS))
    schema = {"type": "object", "required": ["zebra"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    body = {"model": "tiny-m2", "prompt": "x", "response_format": wanted}
    assert roomy.post("/v1/completions", body).json()["choices"][0]["text"] == '{"zebra": 1}'
    assert "zebra" in roomy.fake.requests[-1].grammar.text


def test_a_chat_answer_may_be_a_structured_output(roomy: Harness, tokenizer: Tokenizer) -> None:
    roomy.script(say(thinking_answer(tokenizer, "hm", "zebra"), eos=EOS))
    reply = roomy.chat(structured_outputs={"choice": ["zebra", "ape"]})
    assert reply.json()["choices"][0]["message"]["content"] == "zebra"
    request = roomy.fake.requests[-1]
    assert '"zebra" | "ape"' in request.grammar.text
    assert request.end_of_thinking_id


@pytest.mark.parametrize(
    "fields, other",
    [
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [WEATHER], "tool_choice": "required"}, "tool_choice"),
    ],
)
def test_an_answer_has_one_form(roomy: Harness, fields: dict[str, Any], other: str) -> None:
    error = roomy.chat(structured_outputs={"regex": "a"}, **fields).json()["error"]
    assert error["param"] == "structured_outputs"
    assert other in error["message"]


def test_a_forced_call_without_a_limit_gets_one(
    roomy: Harness, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def most(**fields: Any) -> int:
        assert roomy.chat(**fields).status_code == 200
        return int(roomy.fake.requests[-1].sampling.max_tokens)

    core = roomy.service.gateway
    assert core.forced_call_tokens == core.config.forced_call_tokens == 4096
    monkeypatch.setattr(core, "forced_call_tokens", 300)  # the context has room for more
    forced: dict[str, Any] = {"tools": [WEATHER], "tool_choice": "required", "max_tokens": None}
    assert most(**forced) == 300
    assert most(**{**forced, "tool_choice": named("weather")}) == 300
    assert most(**{**forced, "max_tokens": 500}) == 500
    assert most(**{**forced, "min_tokens": 400}) == 400
    assert most(**{**forced, "tool_choice": "auto"}) > 3000


def test_the_tool_whose_schema_is_refused_is_named(roomy: Harness) -> None:
    bad = {
        "type": "function",
        "function": {
            "name": "bad",
            "parameters": {
                "type": "object",
                "properties": {"to": {"type": "integer", "minimum": 5, "maximum": 3}},
            },
        },
    }
    tools = [WEATHER, bad]
    text = grammar_for(roomy, tools=tools, tool_choice="required")
    assert text is not None
    line = next(i for i, line in enumerate(text.splitlines(), 1) if '"minimum": 5' in line)
    refusal = (grpc.StatusCode.INVALID_ARGUMENT, f"grammar: line {line}: Unsatisfiable schema")
    roomy.script(lambda request: [refusal])
    error = roomy.chat(tools=tools, tool_choice="required").json()["error"]
    assert error["param"] == "tools"
    assert error["message"] == "tools: tool 'bad', parameter 'to': Unsatisfiable schema"
