"""What do this API's answers hold? For the description of the API; the replies write them.

Nothing is listed that is never sent, and the tests compare every kind of answer with these models.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from gateway.http.dialect import Answer
from gateway.shapes.logprobs import TokenLogprob


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid")


class OllamaFunction(_Told):
    """Which tool, with what."""

    index: int
    name: str
    arguments: dict[str, Any]


class OllamaCall(_Told):
    """A call of a tool, whole."""

    function: OllamaFunction


class OllamaMessage(_Told):
    """The answer, or the part of it that is new."""

    role: Literal["assistant"]
    content: str
    thinking: str | None = None
    tool_calls: list[OllamaCall] | None = None


class _Line(_Told):
    model: str
    created_at: str
    logprobs: list[TokenLogprob] | None = None
    done: bool
    done_reason: Literal["stop", "length", "load", "unload"] | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


class OllamaChatLine(_Line):
    """A whole answer, or a line of a streamed one; the counts are in the last."""

    message: OllamaMessage


class OllamaGenerateLine(_Line):
    """The same of a plain prompt."""

    response: str
    thinking: str | None = None


class OllamaDetails(_Told):
    """What kind of model it is."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class OllamaModel(_Told):
    """A name under which the model is served; the last three where it is asked what runs."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: OllamaDetails
    expires_at: str | None = None
    size_vram: int | None = None
    context_length: int | None = None


class OllamaModels(_Told):
    """All of them."""

    models: list[OllamaModel]


class OllamaVersion(_Told):
    """Of the API that is followed."""

    version: str


class OllamaModelInfo(_Told):
    """What the model can do."""

    modelfile: str
    license: str
    template: str
    parameters: str
    details: OllamaDetails
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


ANSWERS = {
    "/api/tags": Answer(whole=OllamaModels),
    "/api/ps": Answer(whole=OllamaModels),
    "/api/version": Answer(whole=OllamaVersion),
    "/api/show": Answer(whole=OllamaModelInfo),
    "/api/chat": Answer(whole=OllamaChatLine, event=OllamaChatLine),
    "/api/generate": Answer(whole=OllamaGenerateLine, event=OllamaGenerateLine),
}
