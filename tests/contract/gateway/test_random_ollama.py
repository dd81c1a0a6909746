"""Whatever a body to Ollama's API says and the model emits: proper errors, one answer twice."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ollama.fields import OllamaChatRequest, OllamaGenerateRequest, Options
from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.gateway.answers import WEATHER, thinking_answer
from tests.support.gateway.fake_attention import ended, say, tokens
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS, NAME
from tests.support.gateway.ollama import both
from tests.support.gateway.random_bodies import ANYTHING, PIECES, SOME, emitted

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
    with httpx.Client(verify=False) as client:
        reply = client.post(
            f"{gateway.base_url}/api/{path}",
            content=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
    if reply.status_code == 200:
        last = json.loads(reply.text.splitlines()[-1])
        assert last.get("done") is True or path == "show"
        return
    assert reply.status_code in (400, 404), reply.text
    assert set(reply.json()) == {"error"}
    assert len(reply.content) < 2000


ENDS = {"eos": attention_pb2.FINISH_REASON_STOP, "cut": attention_pb2.FINISH_REASON_LENGTH}


@SOME
@given(
    pieces=PIECES,
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    end=st.sampled_from(["eos", "cut"]),
    cut=st.integers(0, 3),
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
    pieces: list[Any],
    sizes: list[int],
    end: str,
    cut: int,
    options: dict[str, Any],
) -> None:
    ids = emitted(tokenizer, pieces)
    ids = ids[: len(ids) - cut] if end == "cut" else ids

    def script(request: attention_pb2.GenerateRequest) -> list[Any]:
        parts, start = [], 0
        while start < len(ids):
            size = sizes[len(parts) % len(sizes)]
            parts.append(tokens(start, ids[start : start + size]))
            start += size
        return [*parts, ended(ENDS[end])]

    gateway.script(script)
    both(gateway, **options)
