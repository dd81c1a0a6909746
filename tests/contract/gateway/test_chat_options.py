"""What chat takes beside messages: an answer begun, token ids, template variables, any name."""

from typing import Any

import pytest

from moe_model.text.tokenizer import Tokenizer
from tests.support.gateway.answers import events_of, thinking_answer
from tests.support.gateway.fake_attention import say
from tests.support.gateway.harness import Harness
from tests.support.gateway.model import EOS, NAME

BEGUN = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "he"}]


@pytest.mark.parametrize("fields", [{}, {"add_generation_prompt": False}])
def test_an_answer_goes_on_from_the_last_message(
    gateway: Harness, tokenizer: Tokenizer, fields: dict[str, Any]
) -> None:
    gateway.script(say(tokenizer.encode_text("llo"), eos=EOS))
    reply = gateway.chat(messages=BEGUN, continue_final_message=True, **fields)
    message = reply.json()["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "llo"}
    prompt = tokenizer.decode(gateway.fake.requests[-1].prompt_token_ids)
    assert prompt.endswith("]~b]ai\n<think>\n\n</think>\n\nhe")


def test_thinking_goes_on_too(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "well", "hi"), eos=EOS))
    thought = {"role": "assistant", "content": "", "reasoning_content": "oh "}
    reply = gateway.chat(messages=[BEGUN[0], thought], continue_final_message=True)
    message = reply.json()["choices"][0]["message"]
    assert (message["reasoning_content"].strip(), message["content"]) == ("well", "hi")
    prompt = tokenizer.decode(gateway.fake.requests[-1].prompt_token_ids)
    assert prompt.endswith("]~b]ai\n<think>\noh ")


def test_without_it_the_last_answer_is_finished(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    gateway.chat(messages=BEGUN)
    prompt = tokenizer.decode(gateway.fake.requests[-1].prompt_token_ids)
    assert prompt.endswith("he[e~[\n]~b]ai\n<think>\n")


@pytest.mark.parametrize("role", ["user", "system", "tool"])
def test_only_an_answer_can_go_on(gateway: Harness, role: str) -> None:
    messages = [*BEGUN, {"role": role, "content": "x"}]
    reply = gateway.chat(messages=messages, continue_final_message=True)
    assert reply.json()["error"]["param"] == "continue_final_message"


def test_null_is_minimaxs_default_too(gateway: Harness, tokenizer: Tokenizer) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    body = {"model": "MiniMax-M2", "messages": BEGUN[:1], "reasoning_split": None}
    reply = gateway.post("/v1/text/chat/completions", body).json()
    assert reply["choices"][0]["message"]["content"] == "<think>\nhm\n</think>\n\nhi"


def test_token_ids_are_told_whole_and_streamed(gateway: Harness, tokenizer: Tokenizer) -> None:
    ids = thinking_answer(tokenizer, "hm", "hi STOP")
    gateway.script(say(ids, eos=EOS))
    whole = gateway.chat(return_token_ids=True, stop="STOP").json()
    choice = whole["choices"][0]
    assert choice["token_ids"] == ids
    assert choice["stop_reason"] == "STOP"
    assert whole["prompt_token_ids"] == list(gateway.fake.requests[-1].prompt_token_ids)
    chunks = events_of(gateway.chat(return_token_ids=True, stop="STOP", stream=True).text)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [i for one in choices for i in one.get("token_ids", [])] == ids
    assert choices[0]["prompt_token_ids"] == whole["prompt_token_ids"]
    assert choices[-1]["stop_reason"] == "STOP"
    assert "token_ids" not in gateway.chat().json()["choices"][0]


def test_template_variables_that_the_template_does_not_have_are_ignored(
    gateway: Harness, tokenizer: Tokenizer
) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    assert gateway.chat(chat_template_kwargs={"enable_thinking": False}).status_code == 200
    reply = gateway.chat(chat_template_kwargs={"tools": []})
    assert reply.json()["error"]["param"] == "chat_template_kwargs.tools"


def test_every_name_is_the_models_where_the_operator_says_so(
    make_gateway: Any, tokenizer: Tokenizer
) -> None:
    gateway: Harness = make_gateway(any_model_name=True)
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    reply = gateway.chat(model="gpt-4o")
    assert (reply.status_code, reply.json()["model"]) == (200, NAME)
    assert gateway.chat(model=None).status_code == 404


@pytest.mark.parametrize("stream", [False, True])
def test_no_alternatives_may_be_asked_for_without_logprobs(
    gateway: Harness, tokenizer: Tokenizer, stream: bool
) -> None:
    gateway.script(say(thinking_answer(tokenizer, "hm", "hi"), eos=EOS))
    assert gateway.chat(top_logprobs=0, stream=stream).status_code == 200
