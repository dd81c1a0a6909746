"""Whatever a body to Ollama's API says and the model emits: proper errors, one answer twice."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ollama.fields import OllamaChatRequest, OllamaGenerateRequest, Options
from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import WEATHER, thinking_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS, NAME
from tests.support.gateway.ollama import both
from tests.support.gateway.random_bodies import (
    ANYTHING,
    SOME,
    Emission,
    emissions,
    posted,
)

TEXT = st.text(max_size=20)
CALL = st.fixed_dictionaries(
    {}, optional={"id": ANYTHING, "function": st.just({"name": "weather"}) | ANYTHING}
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]) | ANYTHING},
    optional={
        "content": TEXT | ANYTHING,
        "thinking": TEXT | ANYTHING,
        "images": st.just([]) | ANYTHING,
        "tool_calls": st.lists(CALL | ANYTHING, max_size=3) | ANYTHING,
        "tool_name": st.just("weather") | ANYTHING,
        "tool_call_id": ANYTHING,
    },
)
OPTIONS = st.dictionaries(
    st.sampled_from([*Options.model_fields, "num_ctx"]), st.integers(0, 1) | ANYTHING, max_size=3
)
OTHERS = sorted(
    {*OllamaChatRequest.model_fields, *OllamaGenerateRequest.model_fields} - {"stream", "model"}
)
BODY = st.builds(
    lambda some, known: {"model": NAME, **some, **known},
    st.dictionaries(st.sampled_from(OTHERS), ANYTHING, max_size=2),
    st.fixed_dictionaries(
        {
            "messages": st.lists(MESSAGE | ANYTHING, max_size=5) | ANYTHING,
            "prompt": TEXT | ANYTHING,
        },
        optional={"options": OPTIONS | ANYTHING, "stream": st.booleans(), "name": ANYTHING},
    ),
)


@pytest.fixture
def gateway(roomy_gateway: Harness) -> Harness:
    return roomy_gateway


@SOME
@given(BODY, st.sampled_from(["chat", "generate", "show"]))
def test_every_body_has_a_proper_answer(
    gateway: Harness, tokenizer: Tokenizer, body: dict[str, Any], path: str
) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    reply = posted(gateway, f"/api/{path}", body)
    if reply.status_code == 200:
        last = json.loads(reply.text.splitlines()[-1])
        assert last.get("done") is True or path == "show"
        return
    assert reply.status_code in (400, 404), reply.text
    assert set(reply.json()) == {"error"}
    assert len(reply.content) < 2000


@SOME
@given(
    emission=emissions(),
    options=st.fixed_dictionaries(
        {},
        optional={
            "think": st.booleans(),
            "logprobs": st.booleans(),
            "options": st.just({"stop": ["STOP"]}),
            "tools": st.just([WEATHER]),
            "path": st.sampled_from(["/api/chat", "/api/generate"]),
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
    both(gateway, **options)
