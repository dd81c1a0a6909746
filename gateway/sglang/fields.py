"""Which fields may a request carry, and of which types?

Types are strict, and `null` means absent. Fields that are not listed are accepted and ignored,
unless they would change the answer: see `REFUSED` and `REFUSED_SAMPLING`.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gateway.errors import unsupported


class SGLangRequest(BaseModel):
    """POST /generate: exactly one of text and input_ids."""

    model_config = ConfigDict(strict=True)

    text: Any = Field(None, description="string or strings")
    input_ids: Any = Field(None, description="token ids, or lists of them")
    sampling_params: dict[str, Any] | None = Field(
        None, description="the same for all texts; absent ones are the model's own"
    )
    stream: bool | None = Field(None, description="events with all of the text so far")
    return_logprob: bool | None = None
    logprob_start_len: int | None = Field(
        None, description="from which token of the prompt on; default -1: none of them"
    )
    top_logprobs_num: int | None = None
    return_text_in_logprobs: bool | None = None
    session_id: Any = Field(None, description="requests of one session prefer one service")


class SamplingFields(BaseModel):
    """What `sampling_params` may hold."""

    model_config = ConfigDict(strict=True)

    max_new_tokens: int | None = 128
    min_new_tokens: int | None = None
    n: int | None = None
    stop: Any = None
    stop_token_ids: list[int] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    sampling_seed: int | None = None
    ignore_eos: bool | None = None
    regex: str | None = None
    json_schema: Any = None


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
