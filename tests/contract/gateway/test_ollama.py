"""Ollama's API: chat, generate, and what it says about the model."""

from pathlib import Path
from typing import Any

import pytest

from gateway.limits import Limits
from moe_model.text.tokenizer import Tokenizer
from protos import attention_pb2
from tests.support.gateway.answers import WEATHER, invoke, thinking_answer, tool_answer
from tests.support.gateway.fake_attention import ended, length, say, tokens
from tests.support.gateway.harness import Harness, ready_status
from tests.support.gateway.model import EOS, NAME, ROOMY_CONTEXT, write_tiny_model
from tests.support.gateway.ollama import USER, ask, assembled, both, lines


@pytest.fixture
def talking(gateway: Harness, tokenizer: Tokenizer) -> Harness:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi there"), eos=EOS))
    return gateway


def prompt_of(gateway: Harness, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(gateway.fake.requests[-1].prompt_token_ids)


class TestChat:
    def test_content_and_thinking_are_apart(self, talking: Harness, tokenizer: Tokenizer) -> None:
        told = both(talking)
        assert told["message"] == {"role": "assistant", "content": "hi there", "thinking": "hm"}
        assert (told["model"], told["done"], told["done_reason"]) == (NAME, True, "stop")
        assert told["eval_count"] == len(thinking_answer(tokenizer, "hm", "hi there")) + 1
        assert told["prompt_eval_count"] == len(talking.fake.requests[0].prompt_token_ids)

    def test_thinking_is_left_out_where_it_is_not_wanted(self, talking: Harness) -> None:
        assert both(talking, think=False)["message"] == {"role": "assistant", "content": "hi there"}
        assert both(talking, think="high")["message"]["thinking"] == "hm"

    def test_a_name_may_have_a_tag(self, talking: Harness) -> None:
        assert both(talking, model=f"{NAME}:latest")["model"] == f"{NAME}:latest"

    def test_options_are_applied(self, talking: Harness) -> None:
        options = {
            "temperature": 0,
            "top_k": 5,
            "top_p": 0.5,
            "min_p": 0.25,
            "repeat_penalty": 1.5,
            "seed": 7,
            "num_predict": 4,
            "stop": ["th"],
            "num_ctx": 10,
            "mirostat": 0,
        }
        told = both(talking, options=options, keep_alive="5m")
        sampling = talking.fake.requests[0].sampling
        assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0, 5, 0.5)
        assert (sampling.min_p, sampling.repetition_penalty, sampling.seed) == (0.25, 1.5, 7)
        assert (sampling.max_tokens, told["done_reason"]) == (4, "length")

    def test_no_limit_and_no_seed_have_their_numbers(self, talking: Harness) -> None:
        for limit in (-1, -2, 0):
            assert both(talking, options={"num_predict": limit, "seed": -1})["message"]["content"]
        assert len({request.sampling.seed for request in talking.fake.requests}) == 6

    def test_a_stop_string_ends_the_answer(self, talking: Harness) -> None:
        told = both(talking, options={"stop": [" th"]})
        assert (told["message"]["content"], told["done_reason"]) == ("hi", "stop")

    @pytest.mark.parametrize("demand", ["json", {"type": "object"}])
    def test_a_format_becomes_a_grammar(self, talking: Harness, demand: Any) -> None:
        both(talking, format=demand)
        assert "object" in talking.fake.requests[0].grammar.text
        both(talking, format="")
        assert not talking.fake.requests[-1].grammar.text

    def test_logprobs_are_told_for_each_token(self, talking: Harness) -> None:
        told = both(talking, logprobs=True, top_logprobs=2)
        assert len(told["logprobs"]) == told["eval_count"] - 1
        assert {"token", "logprob", "bytes", "top_logprobs"} == set(told["logprobs"][0])

    def test_without_messages_the_model_is_loaded(self, gateway: Harness) -> None:
        for fields, reason in (({}, "load"), ({"keep_alive": 0}, "unload")):
            told = ask(gateway, messages=[], **fields).json()
            assert (told["done"], told["done_reason"]) == (True, reason)

    def test_an_assistants_last_message_is_continued(
        self, talking: Harness, tokenizer: Tokenizer
    ) -> None:
        ask(talking, messages=[USER, {"role": "assistant", "content": "One, tw"}])
        assert prompt_of(talking, tokenizer).endswith("One, tw")


class TestTools:
    def test_calls_come_whole_with_arguments_as_an_object(
        self, roomy_gateway: Harness, tokenizer: Tokenizer
    ) -> None:
        answer = tool_answer(
            tokenizer, invoke("weather", place="Rome", days="3"), invoke("weather", place="Oslo")
        )
        roomy_gateway.script(say(answer, eos=EOS))
        told = both(roomy_gateway, tools=[WEATHER])
        assert [call["function"] for call in told["message"]["tool_calls"]] == [
            {"index": 0, "name": "weather", "arguments": {"place": "Rome", "days": 3}},
            {"index": 1, "name": "weather", "arguments": {"place": "Oslo"}},
        ]
        assert told["done_reason"] == "stop"

    def test_a_call_that_a_limit_cut_is_left_out(
        self, roomy_gateway: Harness, tokenizer: Tokenizer
    ) -> None:
        ids = tool_answer(tokenizer, invoke("weather", place="Rome"), invoke("weather", place="x"))
        ids = ids[:-20]
        roomy_gateway.script(lambda request: [tokens(0, ids), length(len(ids))])
        told = both(roomy_gateway, tools=[WEATHER])
        assert len(told["message"]["tool_calls"]) == 1
        assert told["done_reason"] == "length"

    @pytest.mark.parametrize("returned", ["thinking", "dropped"])
    @pytest.mark.parametrize("ids", [True, False])
    def test_a_tool_loop_keeps_its_thinking(
        self, make_gateway: Any, tmp_path: Path, tokenizer: Tokenizer, ids: bool, returned: str
    ) -> None:
        gateway = make_gateway(
            model_folder=write_tiny_model(tmp_path / "roomy", context=ROOMY_CONTEXT),
            status=ready_status(ROOMY_CONTEXT),
            restore_thinking="always",
        )
        answer = tool_answer(
            tokenizer, invoke("weather", place="Rome"), invoke("weather", place="Oslo")
        )
        gateway.script(say(answer, eos=EOS))
        message = ask(gateway, stream=False, tools=[WEATHER]).json()["message"]
        first = list(gateway.fake.requests[0].prompt_token_ids)
        if returned == "dropped":
            del message["thinking"]
        results = [
            {"role": "tool", "content": "rain", "tool_name": "weather"},
            {"role": "tool", "content": "snow", "tool_name": "weather"},
        ]
        if ids:  # as clients make them up; then the order of results is told by them
            for name, call, result in zip("ab", message["tool_calls"], results, strict=True):
                call["id"] = result["tool_call_id"] = name
            results.reverse()
        ask(gateway, messages=[USER, message, *results], tools=[WEATHER])
        prompt = list(gateway.fake.requests[-1].prompt_token_ids)
        assert prompt[: len(first) + len(answer)] == [*first, *answer]
        rest = tokenizer.decode(prompt[len(first) + len(answer) :])
        assert 0 < rest.index("rain") < rest.index("snow")


class TestGenerate:
    def test_a_prompt_is_a_users_message(self, talking: Harness, tokenizer: Tokenizer) -> None:
        told = both(talking, path="/api/generate", system="Be brief.")
        assert (told["response"], told["thinking"]) == ("hi there", "hm")
        assert "Be brief." in prompt_of(talking, tokenizer)
        assert "user\nhello" in prompt_of(talking, tokenizer)

    def test_a_raw_prompt_is_text(self, talking: Harness, tokenizer: Tokenizer) -> None:
        told = both(talking, path="/api/generate", raw=True, prompt="hello")
        assert prompt_of(talking, tokenizer) == "hello"
        assert told["response"] == "hm\n</think>\n\nhi there"

    def test_without_a_prompt_the_model_is_loaded(self, gateway: Harness) -> None:
        told = ask(gateway, path="/api/generate", prompt=None).json()
        assert (told["response"], told["done_reason"]) == ("", "load")


class TestErrors:
    @pytest.mark.parametrize(
        "fields, told",
        [
            ({"messages": [{**USER, "images": ["aGk="]}]}, "messages[0].images"),
            ({"messages": [{"role": "wizard", "content": ""}]}, "messages[0].role"),
            ({"messages": [5]}, "messages[0]"),
            ({"messages": "hello"}, "messages"),
            ({"options": {"temperature": 9}}, "options.temperature"),
            ({"options": {"repeat_penalty": 0}}, "options.repeat_penalty"),
            ({"options": {"num_predict": "9"}}, "options.num_predict"),
            ({"options": {"stop": [""]}}, "options.stop[0]"),
            ({"options": 5}, "options"),
            ({"format": "xml"}, "format"),
            ({"format": {"a": ["x" * 1000] * 200}}, "format"),
            ({"think": 5}, "think"),
            ({"logprobs": True, "top_logprobs": 99}, "top_logprobs"),
            ({"tools": [{"type": "function"}]}, "tools[0].function"),
            ({"path": "/api/generate", "images": ["aGk="]}, "images"),
            ({"path": "/api/generate", "suffix": "x"}, "suffix"),
            ({"path": "/api/generate", "context": [1]}, "context"),
            ({"path": "/api/generate", "template": "x"}, "template"),
            ({"path": "/api/generate", "prompt": "z" * 300}, "prompt"),
        ],
        ids=lambda value: str(value)[:60],
    )
    def test_a_wrong_field_is_named(
        self, gateway: Harness, fields: dict[str, Any], told: str
    ) -> None:
        reply = ask(gateway, **fields)
        assert reply.status_code == 400, reply.text
        assert set(reply.json()) == {"error"}
        assert reply.json()["error"].startswith(f"{told}")

    def test_images_of_earlier_turns_are_words(
        self, talking: Harness, tokenizer: Tokenizer
    ) -> None:
        past = [{**USER, "images": ["aGk="]}, {"role": "assistant", "content": "nice"}, USER]
        assert ask(talking, messages=past).status_code == 200
        assert "image" in prompt_of(talking, tokenizer)

    def test_another_model_is_404(self, gateway: Harness) -> None:
        reply = ask(gateway, model="llama3")
        assert (reply.status_code, set(reply.json())) == (404, {"error"})

    @pytest.mark.parametrize(
        "method, path",
        [
            ("POST", "/api/pull"),
            ("POST", "/api/push"),
            ("POST", "/api/create"),
            ("POST", "/api/copy"),
            ("DELETE", "/api/delete"),
            ("POST", "/api/blobs/sha256:0"),
        ],
    )
    def test_models_are_not_fetched_made_or_removed(
        self, gateway: Harness, method: str, path: str
    ) -> None:
        reply = gateway.request(method, path, json={"model": NAME})
        assert reply.status_code == 403
        assert "fetches, makes and removes none" in reply.json()["error"]

    def test_unknown_paths_have_the_same_shape(self, gateway: Harness) -> None:
        reply = gateway.post("/api/embed", {"model": NAME})
        assert (reply.status_code, set(reply.json())) == (404, {"error"})

    def test_a_stream_that_fails_ends_with_an_error(
        self, talking: Harness, tokenizer: Tokenizer
    ) -> None:
        said = thinking_answer(tokenizer, "hm", "hi")
        error = ended(attention_pb2.FINISH_REASON_ERROR, "it broke")
        talking.script(lambda request: [tokens(0, said), 0.2, error])
        stream = lines(ask(talking))
        assert stream[-1] == {"error": "it broke"}
        assert stream[0]["message"]["content"] == "hi"

    def test_a_pause_is_a_line_with_nothing_in_it(
        self, make_gateway: Any, tokenizer: Tokenizer
    ) -> None:
        gateway = make_gateway(limits=Limits(keepalive_s=0.05, early_error_wait_s=0.01))
        gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS, pause_s=0.1, step=4))
        stream = lines(ask(gateway))
        empty = {"role": "assistant", "content": ""}
        assert sum(line["message"] == empty for line in stream) > 2
        assert assembled(stream)["message"]["content"] == "hi"

    def test_everything_needs_the_key(self, make_gateway: Any) -> None:
        gateway = make_gateway(api_key=("some-key-123",))
        for path in ("/api/tags", "/api/ps", "/api/version"):
            assert gateway.get(path).status_code == 401
        for path in ("/api/chat", "/api/generate", "/api/show", "/api/pull"):
            reply = gateway.post(path, {})
            assert (reply.status_code, set(reply.json())) == (401, {"error"})

    def test_a_web_pages_request_without_json_is_415(self, gateway: Harness) -> None:
        reply = gateway.post("/api/chat", {}, headers={"content-type": "text/plain"})
        assert reply.status_code == 415


class TestModels:
    def test_names_are_listed(self, gateway: Harness) -> None:
        for path in ("/api/tags", "/api/ps"):
            models = gateway.get(path).json()["models"]
            assert [model["name"] for model in models] == [NAME, "alias"]

    def test_show_tells_the_context_and_what_the_model_can_do(self, gateway: Harness) -> None:
        told = gateway.post("/api/show", {"model": NAME}).json()
        assert told["capabilities"] == ["completion", "tools", "thinking"]
        family = told["model_info"]["general.architecture"]
        assert told["model_info"][f"{family}.context_length"] == 256
        assert gateway.post("/api/show", {"name": f"{NAME}:latest"}).json() == told
        assert gateway.post("/api/show", {"model": "other"}).status_code == 404
        assert gateway.post("/api/show", {}).status_code == 404

    def test_nothing_tells_a_path_or_an_address(self, gateway: Harness, model_folder: Any) -> None:
        texts = [gateway.get(path).text for path in ("/api/tags", "/api/ps", "/api/version")]
        texts.append(gateway.post("/api/show", {"model": NAME}).text)
        for text in texts:
            assert str(model_folder) not in text
            assert "127.0.0.1" not in text
