"""How are the next tokens chosen? `SamplingParams`, with vLLM's names.

The values are checked when the object is made, by the code that also checks requests over HTTP
(`gateway/openai/completion_fields.py`) and with the same messages. What the gateway accepts is
therefore accepted here.
"""

import copy
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from protos.sampling_ranges import MAX_TOP_LOGPROBS


class RequestOutputKind(IntEnum):
    """What each output of a stream holds."""

    CUMULATIVE = 0
    """All text and tokens so far."""
    DELTA = 1
    """Only what is new."""
    FINAL_ONLY = 2
    """There is one output, at the end."""


@dataclass(kw_only=True)
class StructuredOutputsParams:
    """Exactly one constraint on the form of the output."""

    json: str | dict[str, Any] | None = None
    json_object: bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None

    def __post_init__(self) -> None:
        if len(self.fields()) != 1:
            raise ValueError(
                "structured_outputs: give exactly one of json, json_object, regex, choice, grammar"
            )

    def fields(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value not in (None, False)}


GuidedDecodingParams = StructuredOutputsParams
"""The older name."""


@dataclass(kw_only=True)
class SamplingParams:
    """One request's sampling. Raises ValueError naming the field and what is allowed.

    None for temperature, top_p, top_k or repetition_penalty means the checkpoint's default
    (generation_config.json); None for max_tokens means the rest of the context.
    """

    n: int = 1
    best_of: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float | None = 1.0
    temperature: float | None = 1.0
    top_p: float | None = 1.0
    top_k: int | None = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    """Accepted, without effect: a byte-level tokenizer puts no spaces between tokens."""
    include_stop_str_in_output: bool = False
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    logit_bias: dict[int, float] | None = None
    structured_outputs: StructuredOutputsParams | None = None
    guided_decoding: StructuredOutputsParams | None = None
    truncate_prompt_tokens: int | None = None
    bad_words: list[str] | None = None
    allowed_token_ids: list[int] | None = None
    logits_processors: list[Any] | None = None
    extra_args: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        from expertmesh.offline.checks import read_fields

        if not self.detokenize and self.stop:
            raise ValueError("stop: strings need detokenize=True")
        if self.extra_args:
            raise ValueError(f"extra_args: none are supported, got {sorted(self.extra_args)}")
        if self.guided_decoding is not None and self.structured_outputs is not None:
            raise ValueError("guided_decoding: the older name of structured_outputs; give one")
        if self.prompt_logprobs is not None and not 0 <= self.prompt_logprobs <= MAX_TOP_LOGPROBS:
            raise ValueError(
                f"prompt_logprobs: must be 0 to {MAX_TOP_LOGPROBS}, got {self.prompt_logprobs}"
            )
        read_fields(self.http_fields())

    def clone(self) -> "SamplingParams":
        """One that shares nothing with this one."""
        return copy.deepcopy(self)

    def copy(self) -> "SamplingParams":
        """The same as `clone`."""
        return self.clone()

    def http_fields(self) -> dict[str, Any]:
        """The same parameters as fields of a completions request, without those not set.

        Not included: `prompt_logprobs`, and `detokenize`, `skip_special_tokens` and
        `include_stop_str_in_output`, which the code that makes the text applies.
        """
        form = self.structured_outputs or self.guided_decoding
        fields = {
            "n": self.n,
            "best_of": self.best_of,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "repetition_penalty": self.repetition_penalty,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "seed": self.seed,
            "stop": self.stop or None,
            "stop_token_ids": self.stop_token_ids or None,
            "ignore_eos": self.ignore_eos,
            "max_tokens": self.max_tokens,
            "min_tokens": self.min_tokens,
            "logprobs": self.logprobs,
            "logit_bias": {str(key): value for key, value in (self.logit_bias or {}).items()},
            "structured_outputs": form.fields() if form is not None else None,
            "truncate_prompt_tokens": self.truncate_prompt_tokens,
            "bad_words": self.bad_words or None,
            "allowed_token_ids": self.allowed_token_ids or None,
            "logits_processors": self.logits_processors or None,
        }
        return {name: value for name, value in fields.items() if value not in (None, {})}
