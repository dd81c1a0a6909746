"""`SamplingParams` refuses what the gateway refuses, in the same words, when it is made."""

import subprocess
import sys

import pytest

from expertmesh.offline.sampling_params import (
    GuidedDecodingParams,
    SamplingParams,
    StructuredOutputsParams,
)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"temperature": -0.1}, "temperature: must be 0 to 2, got -0.1"),
        ({"top_p": 0}, "top_p: must be above 0"),
        ({"top_k": -2}, "top_k: must be -1 or 0"),
        ({"min_p": 1.5}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"n": 0}, "n: must be 1 to"),
        ({"best_of": 2}, "best_of: only 1"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"min_tokens": 20}, "min_tokens"),
        ({"prompt_logprobs": 21}, "prompt_logprobs: must be 0 to 20"),
        ({"logprobs": 21}, "logprobs: must be 0 to 20"),
        ({"stop": [""]}, r"stop\[0\]"),
        ({"stop": "a", "detokenize": False}, "stop: strings need detokenize"),
        ({"stop_token_ids": [-1]}, r"stop_token_ids\[0\]"),
        ({"logit_bias": {-1: 0.5}}, "logit_bias: keys are token ids"),
        ({"logit_bias": {1: 101}}, "logit_bias: values are -100 to 100"),
        ({"temperature": "0"}, "temperature"),
        ({"bad_words": [""]}, r"bad_words\[0\]"),
        ({"allowed_token_ids": [-1]}, r"allowed_token_ids\[0\]"),
        ({"logits_processors": [print]}, "logits_processors"),
        ({"extra_args": {"a": 1}}, "extra_args"),
    ],
)
def test_bad_values_name_the_field(fields, words):
    with pytest.raises(ValueError, match=words):
        SamplingParams(**fields)


def test_defaults_are_those_that_vllms_users_know():
    params = SamplingParams()
    assert (params.temperature, params.top_p, params.top_k, params.max_tokens) == (1.0, 1.0, 0, 16)
    assert SamplingParams(top_k=-1, max_tokens=None).http_fields().get("max_tokens") is None
    with pytest.raises(TypeError, match="temprature"):
        SamplingParams(temprature=0)


@pytest.mark.parametrize("name", ["clone", "copy"])
def test_a_copy_is_apart(name):
    params = SamplingParams(stop=["a"])
    other = getattr(params, name)()
    assert other == params
    other.stop.append("b")
    assert params.stop == ["a"]


def test_exactly_one_form_of_output():
    assert GuidedDecodingParams is StructuredOutputsParams
    with pytest.raises(ValueError, match="exactly one"):
        StructuredOutputsParams(json={}, regex="a")
    with pytest.raises(ValueError, match="exactly one"):
        StructuredOutputsParams()


def test_importing_the_package_costs_nothing():
    script = (
        "import sys, expertmesh, expertmesh.cli\n"
        "assert 'torch' not in sys.modules and 'expertmesh.offline' not in sys.modules\n"
        "from expertmesh import SamplingParams\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
