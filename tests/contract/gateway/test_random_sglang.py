"""Whatever a body to /generate says, it gets a proper answer."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.sglang.fields import REFUSED, REFUSED_SAMPLING, SamplingFields, SGLangRequest
from protos import attention_pb2
from tests.support.gateway.fake_attention import stopped, tokens
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS
from tests.support.gateway.random_bodies import ANYTHING, SOME, posted

IDS = st.lists(st.integers(-1, 300), max_size=4)
SAMPLING = st.dictionaries(
    st.sampled_from([*SamplingFields.model_fields, *REFUSED_SAMPLING, "skip_special_tokens"]),
    st.integers(0, 2) | st.sampled_from(["a+", "{}", [], [""], {"type": "object"}]) | ANYTHING,
    max_size=3,
)
BODY = st.builds(
    lambda some, prompt, known: {**some, **prompt, **known},
    st.dictionaries(st.sampled_from([*SGLangRequest.model_fields, *REFUSED]), ANYTHING, max_size=1),
    st.fixed_dictionaries({"text": st.text(max_size=9) | st.lists(st.text(max_size=9), max_size=3)})
    | st.fixed_dictionaries({"input_ids": IDS | st.lists(IDS, max_size=3)}),
    st.fixed_dictionaries(
        {},
        optional={
            "sampling_params": SAMPLING | ANYTHING,
            "stream": st.booleans(),
            "return_logprob": st.booleans() | ANYTHING,
            "logprob_start_len": st.integers(-2, 9) | ANYTHING,
            "return_text_in_logprobs": st.booleans(),
            "top_logprobs_num": st.integers(-1, 3),
        },
    ),
)


def script(request: attention_pb2.GenerateRequest) -> list[Any]:
    """As the attention service: log-probabilities where they were asked for, then two tokens."""
    known = [attention_pb2.TokenLogprobs(logprob=-1.0) for _ in request.prompt_token_ids[1:]]
    told = attention_pb2.PromptLogprobs(position=1, logprobs=known)
    wanted = request.sampling.prompt_logprobs and known
    items: list[Any] = [attention_pb2.GenerateResponse(prompt_logprobs=told)] if wanted else []
    ids = [104, EOS][: request.sampling.max_tokens]
    return [*items, *([tokens(0, ids)] if ids else []), stopped(len(ids), EOS)]


@SOME
@given(BODY)
def test_every_body_has_a_proper_answer(gateway: Harness, body: dict[str, Any]) -> None:
    gateway.script(script)
    reply = posted(gateway, "/generate", body)
    if reply.status_code == 200:
        assert '"error"' not in reply.text
        assert reply.text.endswith("data: [DONE]\n\n") or reply.json()
        return
    assert reply.status_code == 400, reply.text
    assert set(reply.json()["error"]) == {"message", "param", "code"}
    assert len(reply.content) < 2000
