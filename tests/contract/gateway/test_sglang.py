"""SGLang's native API: texts that go on, their log-probabilities, and what it says of the model."""

import json
from typing import Any

import grpc
import httpx
import pytest

from gateway.limits import Limits
from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.gateway.answers import ends_with_done, events_of
from tests.support.gateway.fake_attention import ended, length, say, tokens
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS, HOLE, NAME


def ask(gateway: Harness, **fields: Any) -> httpx.Response:
    given = {} if "input_ids" in fields else {"text": "hello"}
    return gateway.post("/generate", {**given, **fields})


def both(gateway: Harness, **fields: Any) -> Any:
    """The whole answer, after it was compared with the last events of the streamed one."""
    reply = ask(gateway, **fields)
    assert reply.status_code == 200, reply.text
    whole = reply.json()
    stream = ask(gateway, stream=True, **fields)
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert ends_with_done(stream.text)
    last: dict[int, Any] = {}
    for event in events_of(stream.text):
        index = event.pop("index", 0)
        assert event["text"].startswith(last.get(index, {"text": ""})["text"])
        last[index] = event
    streamed = [last[index] for index in sorted(last)]
    for one in (*streamed, *(whole if isinstance(whole, list) else [whole])):
        one["meta_info"].pop("id")
        one["meta_info"].pop("e2e_latency")
    assert (streamed if isinstance(whole, list) else streamed[0]) == whole
    return whole


def scores(request: attention_pb2.GenerateRequest) -> list[Any]:
    """A log-probability for each token of the prompt but the first: minus its id."""
    ids = request.prompt_token_ids
    known = [attention_pb2.TokenLogprobs(logprob=-float(token_id)) for token_id in ids[1:]]
    told = attention_pb2.PromptLogprobs(position=1, logprobs=known)
    return [attention_pb2.GenerateResponse(prompt_logprobs=told), length(0)]


@pytest.fixture
def talking(gateway: Harness, tokenizer: Tokenizer) -> Harness:
    gateway.script(say(tokenizer.encode_text(" world and more"), eos=EOS))
    return gateway


class TestGenerate:
    def test_a_text_goes_on(self, talking: Harness, tokenizer: Tokenizer) -> None:
        told = both(talking)
        prompt = list(talking.fake.requests[0].prompt_token_ids)
        assert tokenizer.decode(prompt) == "hello"
        assert told["text"] == " world and more"
        assert told["output_ids"][-1] == EOS
        assert told["meta_info"]["finish_reason"] == {"type": "stop", "matched": EOS}
        assert told["meta_info"]["prompt_tokens"] == len(prompt)
        assert told["meta_info"]["completion_tokens"] == len(told["output_ids"])

    def test_each_event_has_all_of_the_text_so_far(self, talking: Harness) -> None:
        events = events_of(ask(talking, stream=True).text)
        assert len(events) > 1
        assert events[0]["meta_info"]["finish_reason"] is None
        assert "output_ids" not in events[0]

    def test_a_long_text_is_not_repeated_for_every_token(
        self, roomy_gateway: Harness, tokenizer: Tokenizer
    ) -> None:
        ids = tokenizer.encode_text("x" * 3000)
        roomy_gateway.script(say(ids, eos=EOS))
        stream = ask(roomy_gateway, stream=True, sampling_params={"max_new_tokens": 3500}).text
        assert events_of(stream)[-1]["text"] == "x" * 3000
        assert len(stream) < 64 * 3 * 3000

    def test_several_texts_and_choices_are_a_list(self, talking: Harness) -> None:
        told = both(talking, text=["hello you", "he"], sampling_params={"n": 2})
        assert [one["text"] for one in told] == [" world and more"] * 4
        prompts = [one["meta_info"]["prompt_tokens"] for one in told]
        assert prompts[0] == prompts[1] != prompts[2] == prompts[3]
        assert len(both(talking, text=["hello"])) == 1

    def test_ids_are_a_prompt_too(self, talking: Harness) -> None:
        assert both(talking, input_ids=[104, 105])["text"] == " world and more"
        assert list(talking.fake.requests[0].prompt_token_ids) == [104, 105]
        assert len(both(talking, input_ids=[[104], [105, 105]])) == 2

    def test_parameters_are_applied(self, talking: Harness) -> None:
        given = {
            "max_new_tokens": 5,
            "min_new_tokens": 2,
            "temperature": 0,
            "top_p": 0.5,
            "top_k": 3,
            "min_p": 0.25,
            "frequency_penalty": 1.0,
            "presence_penalty": -1.0,
            "stop_token_ids": [7],
            "ignore_eos": True,
            "skip_special_tokens": True,
            "spaces_between_special_tokens": True,
            "stop_regex": [],
            "regex": None,
            "json_schema": None,
        }
        told = both(talking, sampling_params=given)
        sampling = talking.fake.requests[0].sampling
        assert (sampling.max_tokens, sampling.min_tokens, sampling.top_k) == (5, 2, 3)
        assert (sampling.temperature, sampling.top_p, sampling.min_p) == (0, 0.5, 0.25)
        assert (list(sampling.stop_token_ids), sampling.ignore_eos) == ([7], True)
        assert told["meta_info"]["finish_reason"] == {"type": "length", "length": 5}

    def test_without_a_length_it_is_128_tokens_as_in_sglang(self, talking: Harness) -> None:
        ask(talking)
        assert talking.fake.requests[0].sampling.max_tokens == 128

    def test_a_stop_string_ends_the_text(self, talking: Harness) -> None:
        told = both(talking, sampling_params={"stop": " and"})
        assert told["text"] == " world"
        assert told["meta_info"]["finish_reason"] == {"type": "stop", "matched": " and"}

    def test_a_form_becomes_a_grammar(self, talking: Harness) -> None:
        both(talking, sampling_params={"regex": "[0-9]+/x"})
        assert r"[0-9]+\/x" in talking.fake.requests[0].grammar.text
        schema = {"type": "object", "properties": {"place": {"type": "string"}}}
        for given in (schema, json.dumps(schema)):
            both(talking, sampling_params={"json_schema": given})
            assert "place" in talking.fake.requests[-1].grammar.text

    def test_a_refused_form_names_its_field(self, gateway: Harness) -> None:
        refusal = (grpc.StatusCode.INVALID_ARGUMENT, "grammar: no such thing")
        gateway.script(lambda request: [refusal])
        reply = ask(gateway, sampling_params={"regex": "("})
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == "sampling_params.regex"


class TestLogprobs:
    def test_nothing_generated_warms_the_prefix_and_tells_its_length(
        self, gateway: Harness
    ) -> None:
        gateway.script(lambda request: [length(0)])
        told = both(gateway, sampling_params={"max_new_tokens": 0})
        assert told["text"] == ""
        assert told["meta_info"]["prompt_tokens"] == len(gateway.fake.requests[0].prompt_token_ids)

    def test_those_of_the_prompt_begin_where_they_are_asked_for(self, gateway: Harness) -> None:
        gateway.script(scores)
        told = both(
            gateway,
            text=["hi you", "hi me"],
            sampling_params={"max_new_tokens": 0, "temperature": 0},
            return_logprob=True,
            return_text_in_logprobs=True,
            logprob_start_len=2,
        )
        assert told[0]["meta_info"]["input_token_logprobs"] == [
            [None, 32, " "], [-121.0, 121, "y"], [-111.0, 111, "o"], [-117.0, 117, "u"]
        ]  # fmt: skip
        assert told[1]["meta_info"]["input_token_logprobs"][-1] == [-101.0, 101, "e"]
        assert told[0]["meta_info"]["output_token_logprobs"] == []

    def test_where_nothing_is_generated_all_of_the_prompt_is_meant(self, gateway: Harness) -> None:
        gateway.script(scores)
        told = both(
            gateway, input_ids=[[104, 105]], sampling_params={"max_new_tokens": 0},
            return_logprob=True,
        )  # fmt: skip
        assert told[0]["meta_info"]["input_token_logprobs"] == [
            [None, 104, None], [-105.0, 105, None]
        ]  # fmt: skip

    def test_those_of_the_answer_need_none_of_the_prompt(self, talking: Harness) -> None:
        told = both(talking, return_logprob=True, top_logprobs_num=2)["meta_info"]
        assert not talking.fake.requests[0].sampling.prompt_logprobs
        assert told["input_token_logprobs"] == told["input_top_logprobs"] == []
        assert len(told["output_token_logprobs"]) == told["completion_tokens"] - 1
        assert len(told["output_top_logprobs"][0]) == 2


class TestErrors:
    @pytest.mark.parametrize(
        "fields, param",
        [
            ({"text": None}, "text"),
            ({"input_ids": [104], "text": "x"}, "text"),
            ({"text": ""}, "text"),
            ({"text": []}, "text"),
            ({"text": ["a", 5]}, "text[1]"),
            ({"text": 5}, "text"),
            ({"text": "z" * 300}, "text"),
            ({"input_ids": [HOLE]}, "input_ids[0]"),
            ({"input_ids": [[104], []]}, "input_ids[1]"),
            ({"text": ["a"] * 100, "sampling_params": {"n": 8}}, "text"),
            ({"sampling_params": [{}]}, "sampling_params"),
            ({"sampling_params": {"temperature": 9}}, "sampling_params.temperature"),
            ({"sampling_params": {"temperature": "0"}}, "sampling_params.temperature"),
            ({"sampling_params": {"max_new_tokens": -1}}, "sampling_params.max_new_tokens"),
            ({"sampling_params": {"min_new_tokens": 200}}, "sampling_params.min_new_tokens"),
            ({"sampling_params": {"n": 0}}, "sampling_params.n"),
            ({"sampling_params": {"stop": [5]}}, "sampling_params.stop[0]"),
            ({"sampling_params": {"stop_regex": ["a+"]}}, "sampling_params.stop_regex"),
            ({"sampling_params": {"regex": "a\nb"}}, "sampling_params.regex"),
            ({"sampling_params": {"json_schema": "{"}}, "sampling_params.json_schema"),
            ({"sampling_params": {"regex": "a", "json_schema": {}}}, "sampling_params.regex"),
            ({"sampling_params": {"skip_special_tokens": False}},
             "sampling_params.skip_special_tokens"),
            ({"return_logprob": True, "top_logprobs_num": 99}, "top_logprobs_num"),
            ({"return_logprob": [True]}, "return_logprob"),
            ({"image_data": "x"}, "image_data"),
        ],
        ids=lambda value: str(value)[:60],
    )  # fmt: skip
    def test_a_wrong_field_is_named(
        self, gateway: Harness, fields: dict[str, Any], param: str
    ) -> None:
        reply = ask(gateway, **fields)
        assert reply.status_code == 400, reply.text
        assert reply.json()["error"]["param"] == param
        assert reply.json()["error"]["message"].startswith(param)

    def test_too_many_logprobs_of_prompts_are_refused(self, make_gateway: Any) -> None:
        gateway = make_gateway(limits=Limits(prompt_logprobs=20))
        gateway.script(scores)
        asked = {"return_logprob": True, "sampling_params": {"max_new_tokens": 0}}
        assert ask(gateway, text="z" * 20, **asked).status_code == 200
        for fields in ({"text": "z" * 21}, {"text": "z" * 11, "top_logprobs_num": 1}):
            reply = ask(gateway, **fields, **asked)
            assert reply.status_code == 400
            assert "at most 20 log-probabilities" in reply.json()["error"]["message"]

    def test_a_stream_that_fails_ends_with_an_error(
        self, gateway: Harness, tokenizer: Tokenizer
    ) -> None:
        error = ended(attention_pb2.FINISH_REASON_ERROR, "it broke")
        gateway.script(lambda request: [tokens(0, tokenizer.encode_text(" you")), 0.2, error])
        events = events_of(ask(gateway, stream=True).text)
        assert events[-1]["error"]["message"] == "it broke"

    def test_the_cache_is_not_the_clients_to_flush(self, gateway: Harness) -> None:
        reply = gateway.post("/flush_cache", b"")
        assert reply.status_code == 403
        assert "cached prompts" in reply.json()["error"]["message"]

    def test_everything_needs_the_key(self, make_gateway: Any) -> None:
        gateway = make_gateway(api_key=("some-key-123",))
        for path in ("/get_model_info", "/server_info", "/tokenizer_info", "/props"):
            assert gateway.get(path).status_code == 401
        assert ask(gateway).status_code == 401


class TestFacts:
    def test_the_model_is_told_by_its_name(self, gateway: Harness) -> None:
        for path in ("/get_model_info", "/model_info"):
            told = gateway.get(path).json()
            assert (told["model_path"], told["is_generation"]) == (NAME, True)

    def test_the_context_is_told(self, gateway: Harness) -> None:
        assert gateway.get("/server_info").json()["context_length"] == 256
        assert gateway.get("/props").json()["default_generation_settings"]["n_ctx"] == 256

    def test_the_tokenizers_facts_are_those_of_the_checkpoint(
        self, gateway: Harness, model_folder: Any
    ) -> None:
        told = gateway.get("/tokenizer_info").json()
        assert told["eos_token"] == "[e~["
        assert told["chat_template"] == (model_folder / "chat_template.jinja").read_text()

    def test_nothing_tells_a_path_or_an_address(self, gateway: Harness, model_folder: Any) -> None:
        for path in ("/get_model_info", "/server_info", "/tokenizer_info", "/props"):
            text = gateway.get(path).text
            assert str(model_folder) not in text
            assert "127.0.0.1" not in text
            assert str(gateway.port) not in text


def test_no_two_endpoints_share_the_name_of_what_they_take(gateway: Harness) -> None:
    """The OpenAPI document names each body by its class."""
    schemas = gateway.get("/openapi.json").json()["components"]["schemas"]
    assert "messages" in schemas["ChatRequest"]["properties"]
    assert "reasoning_split" in schemas["ChatRequest"]["properties"]
    assert "keep_alive" in schemas["OllamaChatRequest"]["properties"]
    assert "input_ids" in schemas["SGLangRequest"]["properties"]
