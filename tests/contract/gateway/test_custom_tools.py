"""Custom tools in the Responses API: free text as input, and grammars of it."""

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import invoke, tool_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS
from tests.support.gateway.responses import PATCH, WEATHER, both, without_ids


@pytest.fixture
def gateway(roomy_gateway: Harness) -> Harness:
    return roomy_gateway


def prompt_of(gateway: Harness, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(gateway.fake.requests[-1].prompt_token_ids)


def test_a_custom_tool_takes_plain_text(gateway: Harness, tokenizer: Tokenizer) -> None:
    text = 'a "quoted"\nline \\ with \U0001f600 and <tags>'
    gateway.script(say(tool_answer(tokenizer, invoke("patch", input=text)), eos=EOS))
    response = both(gateway, tools=[PATCH])
    assert without_ids(response["output"][1]) == {
        "type": "custom_tool_call",
        "status": "completed",
        "name": "patch",
        "input": text,
    }


def test_what_a_custom_tools_input_must_match_is_shown_and_demanded_where_a_call_is(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    gateway.script(say(tool_answer(tokenizer, invoke("patch", input="42")), eos=EOS))
    lark = {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'}
    told = both(gateway, tools=[WEATHER, {**PATCH, "format": lark}], tool_choice="required")
    assert 'this Lark grammar:\\nstart: \\"x\\"' in prompt_of(gateway, tokenizer)
    (warning,) = told["warnings"]
    assert warning.startswith("tools[1].format: a Lark grammar is not enforced")
    regex = {"type": "grammar", "syntax": "regex", "definition": "[0-9]{2}"}
    tools = [WEATHER, {**PATCH, "format": regex}]
    assert both(gateway, tools=tools, tool_choice="required")["warnings"] == []
    assert "/[0-9]{2}/" in gateway.fake.requests[-1].grammar.text
    assert "this regular expression:\\n[0-9]{2}" in prompt_of(gateway, tokenizer)
    (warning,) = both(gateway, tools=tools)["warnings"]
    assert warning.startswith("tools[1].format: enforced where tool_choice demands a call")
