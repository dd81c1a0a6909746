"""What do this API's answers hold? For the description of the API; the replies write them.

Nothing is listed that is never sent, and the tests compare every kind of answer with these models.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from gateway.http.dialect import Answer

Entry = Annotated[list[float | int | str | None], Field(min_length=3, max_length=3)]
"""Log-probability, id and text of a token."""


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SGLangEnd(_Told):
    """Why it ended: by a stop, or because there was no room."""

    type: Literal["stop", "length"]
    matched: str | int | None = None
    length: int | None = None


class SGLangMeta(_Told):
    """Beside the text; log-probabilities where they were asked for."""

    id: str
    finish_reason: SGLangEnd | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    e2e_latency: float
    input_token_logprobs: list[Entry] | None = None
    input_top_logprobs: list[list[Entry] | None] | None = None
    output_token_logprobs: list[Entry] | None = None
    output_top_logprobs: list[list[Entry] | None] | None = None


class SGLangText(_Told):
    """One answer; in a stream all of its text so far, the ids in its last event."""

    index: int | None = None
    text: str
    output_ids: list[int] | None = None
    meta_info: SGLangMeta


class SGLangTexts(RootModel[SGLangText | list[SGLangText]]):
    """One answer, or a list where several were asked for."""


class SGLangModelInfo(_Told):
    """The model's name, and its kind."""

    model_path: str
    served_model_name: str
    tokenizer_path: str
    is_generation: bool
    preferred_sampling_params: dict[str, Any] | None
    has_image_understanding: bool
    has_audio_understanding: bool
    model_type: str


class SGLangServerInfo(_Told):
    """The model's name, its context, and the gateway's version."""

    model_path: str
    served_model_name: str
    context_length: int
    max_req_input_len: int
    version: str


_MODEL, _SERVER = Answer(whole=SGLangModelInfo), Answer(whole=SGLangServerInfo)

ANSWERS = {
    "/get_model_info": _MODEL,
    "/model_info": _MODEL,
    "/server_info": _SERVER,
    "/get_server_info": _SERVER,
    "/generate": Answer(whole=SGLangTexts, event=SGLangText),
}
