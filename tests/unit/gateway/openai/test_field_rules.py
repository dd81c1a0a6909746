"""Rows B4 and D5: unknown fields are ignored and logged once; those that matter are refused."""

import logging
from typing import Any

import pytest

from gateway.errors import Kind, RequestError
from gateway.openai.field_rules import FieldRules
from gateway.openai.models import CompletionRequest

KNOWN = CompletionRequest.model_fields
"""Chat knows these and some of the refused ones."""


@pytest.mark.parametrize(
    "name, value",
    [
        ("chat_template", "{{ x }}"),
        ("chat_template_kwargs", {"enable_thinking": False}),
        ("chat_template_kwargs", {"anything": 1}),
        ("chat_template_kwargs", "text"),
        ("add_generation_prompt", False),
        ("continue_final_message", True),
        ("documents", [{"text": "x"}]),
        ("prompt_embeds", "AAAA"),
        ("lora", "x"),
        ("lora_path", "x"),
        ("guided_json", {"type": "object"}),
        ("guided_regex", "a+"),
        ("functions", [{"name": "f"}]),
        ("modalities", ["text", "audio"]),
        ("best_of", 2),
        ("prompt_logprobs", 1),
        ("skip_special_tokens", False),
        ("use_beam_search", True),
    ],
)
def test_fields_that_would_change_the_answer_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(RequestError) as caught:
        FieldRules().check({name: value}, KNOWN)
    assert caught.value.kind is Kind.INVALID_REQUEST
    assert caught.value.field == name
    assert caught.value.reason == "unsupported_parameter"


@pytest.mark.parametrize(
    "name, value",
    [
        ("chat_template", None),
        ("chat_template_kwargs", {}),
        ("chat_template_kwargs", {"enable_thinking": True}),
        ("add_generation_prompt", True),
        ("documents", []),
        ("modalities", ["text"]),
        ("guided_json", None),
        ("best_of", 1),
        ("continue_final_message", False),
        ("reasoning_effort", "high"),
        ("user", "someone"),
        ("store", True),
    ],
)
def test_fields_that_ask_for_nothing_special_pass(name: str, value: Any) -> None:
    FieldRules().check({name: value}, KNOWN)


def test_an_unknown_field_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    rules = FieldRules()
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            rules.check({"surprise\n": 1, "prompt": ""}, KNOWN)
    assert len(caplog.records) == 1
    assert "'surprise\\n'" in caplog.text


def test_the_number_of_logged_names_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    rules = FieldRules()
    with caplog.at_level(logging.INFO):
        for number in range(1000):
            rules.check({f"field{number}": 1}, KNOWN)
    assert len(caplog.records) == 256
