"""Whatever the JSON says, the answer has OpenAI's shape and is never a 500."""

import json
from typing import Any

import httpx
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from gateway.openai.field_rules import REFUSED
from gateway.openai.models import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from moe_model.text.tokenizer import Tokenizer
from tests.support.examples import examples
from tests.support.gateway.answers import thinking_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS, NAME

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.integers(2**64, 2**70).map(lambda n: n**5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.text("\ud83d\udc00\0x", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8).filter(str.isascii), inner, max_size=4)
    ),
    max_leaves=8,
)
ROLES = st.sampled_from(["system", "user", "assistant", "tool", "developer", "other"])
MESSAGE = st.fixed_dictionaries(
    {"role": ROLES},
    optional={
        "content": st.text(max_size=20) | ANYTHING,
        "reasoning_content": ANYTHING,
        "reasoning_details": ANYTHING,
        "tool_calls": ANYTHING,
        "tool_call_id": ANYTHING,
    },
)
TOOL = st.fixed_dictionaries(
    {"type": st.just("function")},
    optional={
        "function": st.fixed_dictionaries(
            {"name": st.text(max_size=5)}, optional={"parameters": ANYTHING}
        )
    },
)


def body_of(fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    names = sorted({*fields, *REFUSED, "unknown"} - {"stream", "messages", "tools", "model"})
    return st.builds(
        lambda some, messages, tools: {"model": NAME, "messages": messages, **tools, **some},
        st.dictionaries(st.sampled_from(names), ANYTHING, max_size=3),
        st.lists(MESSAGE, max_size=4) | ANYTHING,
        st.just({}) | st.fixed_dictionaries({"tools": st.lists(TOOL, max_size=2) | ANYTHING}),
    )


CASES = st.one_of(
    st.tuples(st.just("/v1/chat/completions"), body_of(ChatRequest.model_fields)),
    st.tuples(st.just("/v1/completions"), body_of(CompletionRequest.model_fields)),
    st.tuples(st.just("/tokenize"), body_of(TokenizeRequest.model_fields)),
    st.tuples(st.just("/detokenize"), body_of(DetokenizeRequest.model_fields)),
)


@examples(150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CASES)
def test_every_json_object_has_a_proper_answer(
    gateway: Harness, tokenizer: Tokenizer, case: tuple[str, dict[str, Any]]
) -> None:
    path, body = case
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    with httpx.Client(verify=False) as client:
        reply = client.post(
            gateway.base_url + path,
            content=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
    assert reply.status_code in (200, 400, 404), reply.text
    if reply.status_code != 200:
        error = reply.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert len(reply.content) < 2000
