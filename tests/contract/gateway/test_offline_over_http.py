"""`LLM(base_url=...)` on a real gateway: ids in, ids out, and every end of an answer."""

from collections.abc import Iterator

import grpc
import pytest

from expertmesh import LLM, SamplingParams
from expertmesh.offline.checks import GenerationFailed
from expertmesh.offline.sampling_params import StructuredOutputsParams
from protos import attention_pb2
from tests.support.gateway.fake_attention import ended, length, say, tokens
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import CONTEXT, END_OF_THINK, EOS, NAME

HELLO = list(b"hello")
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture
def llm(gateway: Harness) -> Iterator[LLM]:
    with LLM(base_url=f"{gateway.base_url}/v1", dtype="float32") as one:
        yield one


def test_text_goes_as_ids_and_answers_come_in_order(gateway: Harness, llm: LLM) -> None:
    gateway.script(lambda request: say([request.prompt_token_ids[0], 33], eos=EOS)(request))
    outputs = llm.generate(["a", {"prompt_token_ids": [98]}, "c"], SamplingParams(seed=-1))
    assert [output.outputs[0].text for output in outputs] == ["a!", "b!", "c!"]
    assert [output.prompt_token_ids for output in outputs] == [[97], [98], [99]]
    assert [output.outputs[0].token_ids for output in outputs] == [
        [i, 33, EOS] for i in (97, 98, 99)
    ]
    assert all(o.outputs[0].finish_reason == "stop" and o.num_cached_tokens == 0 for o in outputs)
    assert gateway.fake.requests[0].sampling.seed == 2**64 - 1
    assert outputs[0].metrics.timings["network_ms"] == 3
    assert llm.max_model_len == CONTEXT


def test_what_a_cluster_tells_and_what_it_keeps_to_itself(gateway: Harness, llm: LLM) -> None:
    assert llm.get_tokenizer().eos_token_id == EOS
    gateway.script(say(HELLO, eos=EOS))
    llm.generate("a")
    assert "expertmesh_requests" in {metric.name for metric in llm.get_metrics()}
    with pytest.raises(NotImplementedError, match="not possible over HTTP"):
        llm.reset_prefix_cache()


def test_choices_stops_and_logprobs(gateway: Harness, llm: LLM) -> None:
    gateway.script(say(HELLO, eos=EOS))
    params = SamplingParams(n=2, stop="lo", include_stop_str_in_output=True, logprobs=1)
    (output,) = llm.generate("a", params)
    for index, choice in enumerate(output.outputs):
        assert (choice.index, choice.text) == (index, "hello")
        assert (choice.finish_reason, choice.stop_reason) == ("stop", "lo")
        assert choice.token_ids == HELLO
        assert choice.cumulative_logprob == -2.5
        assert [
            entry[i].decoded_token for i, entry in zip(HELLO, choice.logprobs, strict=True)
        ] == list("hello")


def test_a_stream_grows_and_leaving_it_cancels(gateway: Harness, llm: LLM) -> None:
    gateway.script(say(HELLO, pause_s=0.001))
    texts = [output.outputs[0].text for output in llm.generate_stream("a", SamplingParams())]
    assert texts[-1] == "hello"
    assert len(set(texts)) > 1
    gateway.script(say(HELLO * 40, pause_s=0.05))
    for _ in llm.generate_stream("a", SamplingParams(max_tokens=200)):
        break
    gateway.wait_for(lambda: gateway.fake.cancelled == 1)


def test_chat_comes_raw_and_parsed(gateway: Harness, llm: LLM) -> None:
    gateway.script(say([*b"hmm\n", END_OF_THINK, *b"\n\nyes"], eos=EOS))
    (output,) = llm.chat(MESSAGES, SamplingParams(max_tokens=40))
    assert output.outputs[0].text == "hmm\n</think>\n\nyes"
    assert output.prompt.endswith("<think>\n")
    message = output.outputs[0].message
    assert message == {"role": "assistant", "content": "yes", "reasoning_content": "hmm"}


def test_what_was_said_before_is_never_an_error(gateway: Harness, llm: LLM) -> None:
    gateway.script(say(list(b"yes"), eos=EOS))
    call = {"function": {"name": "f", "arguments": "{cut"}}
    history = [*MESSAGES, {"role": "assistant", "content": "\ud83d", "tool_calls": [call]}]
    (output,) = llm.chat([*history, *MESSAGES], SamplingParams(max_tokens=1))
    assert "\ufffd" in output.prompt
    assert '<parameter name="arguments">{cut</parameter>' in output.prompt


def test_a_form_goes_as_a_grammar_that_begins_after_thinking(gateway: Harness, llm: LLM) -> None:
    gateway.script(say(list(b"yes"), eos=EOS))
    form = StructuredOutputsParams(choice=["yes", "no"])
    llm.generate("a", SamplingParams(structured_outputs=form))
    llm.chat(MESSAGES, SamplingParams(structured_outputs=form))
    plain, after_thinking = gateway.fake.requests
    assert '"yes" | "no"' in plain.grammar.text
    assert (plain.end_of_thinking_id, after_thinking.end_of_thinking_id) == (0, END_OF_THINK)


def test_what_is_none_is_left_to_the_server(gateway: Harness, llm: LLM) -> None:
    gateway.script(say(HELLO, eos=EOS))
    llm.generate("a")
    own = gateway.service.gateway.model.defaults
    assert gateway.fake.requests[0].sampling.top_k == own.top_k
    assert gateway.fake.requests[0].sampling.max_tokens == 16


@pytest.mark.parametrize(
    "items, error, words",
    [
        ([grpc.StatusCode.INVALID_ARGUMENT], ValueError, "INVALID_ARGUMENT"),
        (
            [tokens(0, HELLO), ended(attention_pb2.FINISH_REASON_ERROR, "the experts left")],
            GenerationFailed,
            "the experts left",
        ),
    ],
)
def test_failures_say_why(gateway: Harness, llm: LLM, items, error, words) -> None:
    gateway.script(lambda request: items)
    with pytest.raises(error, match=words):
        llm.generate("a")


def test_a_full_server_is_asked_again(gateway: Harness, llm: LLM, monkeypatch) -> None:
    monkeypatch.setattr("expertmesh.offline.over_http._retry_after_s", lambda header: 0.01)
    refusals = [grpc.StatusCode.RESOURCE_EXHAUSTED]

    def script(request: attention_pb2.GenerateRequest) -> list:
        return [refusals.pop()] if refusals else [tokens(0, HELLO), length(5)]

    gateway.script(script)
    assert llm.generate("a")[0].outputs[0].text == "hello"


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"base_url": "ftp://127.0.0.1"}, ValueError, "base_url: http"),
        ({"base_url": "http://127.0.0.1:1"}, GenerationFailed, "is the cluster up"),
        ({"cluster": "/nowhere"}, ValueError, "expertmesh up --detach"),
    ],
)
def test_a_cluster_that_is_not_there(options, error, words) -> None:
    with pytest.raises(error, match=words):
        LLM(**options)


def test_only_served_models_and_what_the_cluster_decides(gateway: Harness, caplog) -> None:
    with pytest.raises(ValueError, match=NAME):
        LLM("other", base_url=gateway.base_url)
    with LLM("alias", base_url=gateway.base_url, kv_memory="1GiB") as llm:
        with pytest.raises(ValueError, match="skip_special_tokens"):
            llm.generate("a", SamplingParams(skip_special_tokens=False))
    assert caplog.text.count("kv_memory is ignored: the cluster decides it") == 1
