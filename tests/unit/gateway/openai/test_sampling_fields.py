"""Rows C1 to C11: every sampling field has a meaning or a 400 that names it."""

import re
from dataclasses import fields as fields_of
from typing import Any

import pytest

from gateway.errors import ContextExceeded, Kind, RequestError
from gateway.generate.parameters import Parameters, set_logprobs, set_output_length
from gateway.http.typed_body import parse_model
from gateway.limits import Limits
from gateway.openai.models import ChatRequest, SamplingFields
from gateway.openai.sampling import (
    bad_words,
    num_choices,
    output_length,
    read_sampling,
    stop_strings,
)
from moe_model.config import GenerationDefaults
from protos import attention_pb2

LIMITS = Limits()
VOCAB = 1000
DEFAULTS = GenerationDefaults(temperature=1.0, top_p=0.95, top_k=40)


def params(**fields: Any) -> attention_pb2.SamplingParams:
    body = {"model": "m", "messages": [], **fields}
    request = parse_model(ChatRequest, body)
    return read_sampling(request, DEFAULTS, vocab_size=VOCAB, limits=LIMITS)


def refused(call: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        call()
    assert caught.value.kind is Kind.INVALID_REQUEST
    return caught.value


def test_every_parameter_of_the_wire_can_be_set() -> None:
    """A new one needs a line in the proto, in `Parameters` and in `SamplingFields`."""
    wire = set(attention_pb2.SamplingParams.DESCRIPTOR.fields_by_name)
    of_the_output = {"max_tokens", "min_tokens", "logprobs", "top_logprobs", "prompt_logprobs"}
    from_texts = {"banned_sequences"}
    ours = {field.name for field in fields_of(Parameters)}
    assert ours == wire - of_the_output - from_texts
    assert ours <= set(SamplingFields.model_fields)


@pytest.mark.parametrize("name", [f.name for f in fields_of(Parameters) if f.metadata])
def test_every_number_reaches_the_wire(name: str) -> None:
    assert getattr(params(**{name: 0.625}), name) == 0.625
    error = refused(lambda: params(**{name: 100}))
    assert error.field == name
    assert f"must be {SamplingFields.model_fields[name].description}".startswith(
        error.message.removeprefix(f"{name}: ").partition(",")[0]
    )


def test_defaults_come_from_the_checkpoint() -> None:
    sampling = params()
    assert sampling.temperature == 1.0
    assert sampling.top_p == pytest.approx(0.95)
    assert sampling.top_k == 40
    assert sampling.repetition_penalty == 1.0
    assert (sampling.min_p, sampling.presence_penalty, sampling.frequency_penalty) == (0, 0, 0)


@pytest.mark.parametrize(
    "given, meant", [(0, 0), (-0.0, 0), (1e-9, 0), (1e-4, 1e-4), (2, 2), (0.5, 0.5)]
)
def test_temperature(given: float, meant: float) -> None:
    value = params(temperature=given).temperature
    assert value == pytest.approx(meant)
    assert str(value) != "-0.0"


@pytest.mark.parametrize(
    "field, value",
    [
        ("temperature", -1),
        ("temperature", 2.0001),
        ("temperature", 1e9),
        ("temperature", "0.5"),
        ("temperature", "NaN"),
        ("temperature", True),
        ("top_p", 0),
        ("top_p", -1),
        ("top_p", 1.0001),
        ("top_k", -2),
        ("top_k", 1.5),
        ("top_k", True),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0),
        ("repetition_penalty", -1),
        ("repetition_penalty", 10.1),
        ("presence_penalty", 2.1),
        ("presence_penalty", -2.1),
        ("frequency_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("seed", 1.5),
        ("seed", "1"),
        ("logit_bias", {"-1": 0}),
        ("logit_bias", {str(VOCAB): 0}),
        ("logit_bias", {str(2**40): 0}),
        ("logit_bias", {"abc": 0}),
        ("logit_bias", {"1": 101}),
        ("logit_bias", {"1": -1000}),
        ("logit_bias", {str(i): 0 for i in range(301)}),
        ("logit_bias", {"1": 0, "01": 0}),
        ("logit_bias", [1]),
        ("stop_token_ids", [VOCAB]),
        ("stop_token_ids", [-1]),
        ("stop_token_ids", [1.0]),
        ("stop_token_ids", list(range(33))),
        ("ignore_eos", 1),
        ("allowed_token_ids", [VOCAB]),
        ("allowed_token_ids", [-1]),
        ("allowed_token_ids", ["1"]),
        ("allowed_token_ids", 1),
        ("allowed_token_ids", [1] * 16_385),
        ("bad_words", "word"),
        ("bad_words", [1]),
    ],
)
def test_what_is_out_of_range_or_mistyped_is_refused_by_name(field: str, value: Any) -> None:
    error = refused(lambda: params(**{field: value}))
    assert error.field is not None
    assert error.field.split("[")[0].split(".")[0] == field
    assert field in error.message


@pytest.mark.parametrize(
    "top_k, meant", [(0, 0), (-1, 0), (1, 1), (VOCAB, 0), (VOCAB + 1, 0), (2**63, 0)]
)
def test_top_k_beyond_the_vocabulary_means_all(top_k: int, meant: int) -> None:
    assert params(top_k=top_k).top_k == meant


def test_allowed_ids_reach_the_wire_and_an_empty_list_allows_all() -> None:
    assert params(allowed_token_ids=[5, VOCAB - 1]).allowed_token_ids == [5, VOCAB - 1]
    assert params(allowed_token_ids=[]).allowed_token_ids == []


@pytest.mark.parametrize("words", [[""], ["x" * 65], ["x"] * 65])
def test_bad_words_out_of_bounds_are_refused(words: list[str]) -> None:
    request = parse_model(ChatRequest, {"model": "m", "messages": [], "bad_words": words})
    error = refused(lambda: bad_words(request, LIMITS))
    assert error.field is not None
    assert error.field.startswith("bad_words")


def test_tiny_top_p_survives_float32() -> None:
    assert params(top_p=1e-12).top_p > 0
    assert params(top_p=1e-300).top_p > 0


@pytest.mark.parametrize("field", ["repetition_penalty", "min_p", "presence_penalty"])
def test_edges_are_allowed(field: str) -> None:
    edges = {"repetition_penalty": (0.01, 10), "min_p": (0, 1), "presence_penalty": (-2, 2)}
    for value in edges[field]:
        assert getattr(params(**{field: value}), field) == pytest.approx(value)


@pytest.mark.parametrize("seed, meant", [(0, 0), (5, 5), (-1, 2**64 - 1), (2**64 - 1, 2**64 - 1)])
def test_seed_is_taken_modulo_2_to_64(seed: int, meant: int) -> None:
    assert params(seed=seed).seed == meant


def test_a_seed_is_drawn_when_none_is_given() -> None:
    assert len({params().seed for _ in range(8)}) == 8


def test_logit_bias_at_its_edges() -> None:
    biases = params(logit_bias={"0": -100, str(VOCAB - 1): 100}).logit_bias
    assert [(one.token_id, one.bias) for one in biases] == [(0, -100), (VOCAB - 1, 100)]


def length(max_tokens: int | None, min_tokens: int | None = None, prompt: int = 10) -> Any:
    body = {"model": "m", "messages": [], "max_tokens": max_tokens, "min_tokens": min_tokens}
    asked = output_length(parse_model(ChatRequest, body))
    sampling = attention_pb2.SamplingParams()
    set_output_length(
        sampling, asked, num_prompt_tokens=prompt, max_model_len=100, prompt_field="messages"
    )
    return sampling


@pytest.mark.parametrize(
    "given, meant",
    [(1, 1), (90, 90), (91, 90), (100, 90), (101, 90), (65_536, 90), (2**63, 90), (None, 90)],
)
def test_max_tokens_is_cut_to_what_the_prompt_leaves(given: int | None, meant: int) -> None:
    assert length(given).max_tokens == meant


@pytest.mark.parametrize("value", [0, -2, -(2**63)])
def test_max_tokens_below_one_is_refused(value: int) -> None:
    assert refused(lambda: length(value)).field == "max_tokens"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_minus_one_means_no_limit(field: str) -> None:
    request = parse_model(ChatRequest, {"model": "m", "messages": [], field: -1})
    assert getattr(request, field) is None


@pytest.mark.parametrize("value, limit", [(-1, None), (6, 5), (91, None)])
def test_min_tokens_out_of_range_is_refused(value: int, limit: int | None) -> None:
    assert refused(lambda: length(limit, value)).field == "min_tokens"


def test_a_prompt_must_leave_room_for_one_token() -> None:
    assert length(None, prompt=99).max_tokens == 1
    error = refused(lambda: length(None, prompt=100))
    assert error.reason == "context_length_exceeded"
    assert error.field == "messages"


# What agents look for in an error's text before they shorten the conversation.
OVERFLOW_WORDINGS = [
    r"maximum context length is \d+ tokens",
    r"This model's maximum context length is",
    r"maximum context length is (\d+) tokens",
    r"maximum context length",
    r"reduce the length of the messages",
    r"prompt contains (?:at least )?(\d+) input tokens",
    r"prompt is too long",
    r"max.*?(\d+) tokens.*?(\d+) ",
    r"context.{0,20}length",
]


@pytest.mark.parametrize("at_least", [False, True])
@pytest.mark.parametrize("pattern", OVERFLOW_WORDINGS)
def test_agents_recognise_that_the_prompt_is_too_long(pattern: str, at_least: bool) -> None:
    error = ContextExceeded("messages", 40_023, 32_768, at_least=at_least)
    match = re.search(pattern, error.message)
    assert match
    assert set(match.groups()) <= {"32768", "40023"}
    assert error.message.startswith("messages: ")


@pytest.mark.parametrize("n", [0, -1, 9, 5_000_000])
def test_n_out_of_range_is_refused(n: int) -> None:
    assert refused(lambda: num_choices(n, LIMITS)).field == "n"


@pytest.mark.parametrize("n, meant", [(None, 1), (1, 1), (8, 8)])
def test_n(n: int | None, meant: int) -> None:
    assert num_choices(n, LIMITS) == meant


@pytest.mark.parametrize("top", [-1, 21, 10**9])
def test_top_logprobs_out_of_range_is_refused(top: int) -> None:
    sampling = attention_pb2.SamplingParams()
    error = refused(lambda: set_logprobs(sampling, top, "top_logprobs", LIMITS))
    assert error.field == "top_logprobs"


@pytest.mark.parametrize(
    "stop", ["", [""], ["a", ""], ["x"] * 500_000, "x" * 2**20, [1], {"a": 1}, 5, [None]]
)
def test_bad_stops_are_refused(stop: Any) -> None:
    error = refused(lambda: stop_strings(stop, LIMITS))
    assert error.field is not None
    assert error.field.startswith("stop")


@pytest.mark.parametrize(
    "stop, meant", [(None, []), ("a", ["a"]), (["a", "</think>"], ["a", "</think>"]), ([], [])]
)
def test_stops(stop: Any, meant: list[str]) -> None:
    assert stop_strings(stop, LIMITS) == meant
