"""Which fields may a request carry, and of which types?

Types are strict, and `null` means absent. Fields that are not listed are accepted and ignored,
unless they would change the answer: see `REFUSED` and `REFUSED_SAMPLING`.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from gateway.errors import unsupported
from gateway.limits import Limits
from gateway.shapes import field_schemas
from gateway.shapes.sampling_numbers import SamplingNumbers, number


class SamplingFields(SamplingNumbers):
    """The same for all texts; absent ones are the model's own, unknown ones are ignored."""

    model_config = ConfigDict(extra="allow")

    max_new_tokens: int | None = Field(128, json_schema_extra={"minimum": 0})
    min_new_tokens: int | None = Field(None, json_schema_extra={"minimum": 0})
    n: int | None = Field(None, json_schema_extra={"minimum": 1, "maximum": Limits.choices})
    stop: Any = Field(
        None,
        json_schema_extra={"anyOf": [field_schemas.STOP, {"const": ""}]},
    )
    stop_token_ids: list[int] | None = Field(
        None,
        json_schema_extra={"items": field_schemas.TOKEN_ID, "maxItems": Limits.stop_token_ids},
    )
    repetition_penalty: float | None = number("repetition_penalty", "; 1 is off")
    logit_bias: dict[str, float] | None = Field(None, json_schema_extra=field_schemas.LOGIT_BIAS)
    sampling_seed: int | None = None
    ignore_eos: bool | None = None
    regex: str | None = Field(None, json_schema_extra={"maxLength": Limits.pattern_chars})
    json_schema: Any = Field(None, description="a JSON Schema, or its text")


_PROMPT: JsonDict = {"anyOf": [field_schemas.PROMPT, {"type": "null"}]}


class SGLangRequest(BaseModel):
    """POST /generate: exactly one of text and input_ids."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra=field_schemas.one_of(
            text=field_schemas.PROMPT, input_ids=field_schemas.PROMPT
        ),
    )

    text: Any = Field(None, description="string or strings", json_schema_extra=_PROMPT)
    input_ids: Any = Field(
        None, description="token ids, or lists of them", json_schema_extra=_PROMPT
    )
    sampling_params: SamplingFields | None = None
    stream: bool | None = Field(None, description="events with all of the text so far")
    return_logprob: bool | None = None
    logprob_start_len: int | None = Field(
        None, description="from which token of the prompt on; default -1: none of them"
    )
    top_logprobs_num: int | None = Field(None, json_schema_extra=field_schemas.TOP_LOGPROBS)
    return_text_in_logprobs: bool | None = None
    session_id: Any = Field(None, description="requests of one session prefer one service")


_TEXT_ONLY = "this model reads and writes text only"
REFUSED = {
    "image_data": _TEXT_ONLY,
    "audio_data": _TEXT_ONLY,
    "video_data": _TEXT_ONLY,
    "input_embeds": "this field is not supported",
    "lora_path": "there are no adapters",
    "token_ids_logprob": "this field is not supported",
    "return_hidden_states": "this field is not supported",
    "custom_logit_processor": "this field is not supported",
}
REFUSED_SAMPLING = {
    "stop_regex": "use stop",
    "ebnf": "use regex or json_schema",
    "structural_tag": "use regex or json_schema",
    "no_stop_trim": "a stop string is never part of the text",
    "custom_params": "this field is not supported",
}


def refuse(given: Mapping[str, Any], refused: Mapping[str, str]) -> None:
    """Raises RequestError for a field that must not be ignored and asks for something."""
    for name, why in refused.items():
        if given.get(name) not in (None, False, "", [], {}):
            raise unsupported(name, why)
