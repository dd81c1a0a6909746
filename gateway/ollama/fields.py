"""Which fields may a request carry, and of which types?

Types are strict, and `null` means absent. Fields and options that are not listed are about how a
model is loaded: they are accepted and ignored.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gateway.shapes import field_schemas
from gateway.shapes.sampling_numbers import SamplingNumbers, number


class Options(SamplingNumbers):
    """Sampling. Absent ones are the model's own; others are ignored."""

    model_config = ConfigDict(extra="allow")

    repeat_penalty: float | None = number("repetition_penalty", "; 1 is off")
    seed: int | None = Field(None, description="64 bits; -1: a random one")
    num_predict: int | None = Field(None, description="0 and less: no limit")
    stop: Any = Field(None, json_schema_extra=field_schemas.STOP)


class CommonFields(BaseModel):
    """What chat and generate have in common."""

    model_config = ConfigDict(strict=True, protected_namespaces=())

    model: str = Field(description="As listed by GET /api/tags")
    stream: bool | None = Field(None, description="default true: a line of JSON for each part")
    format: Any = Field(
        None,
        description="'json' or a JSON Schema",
        json_schema_extra={"anyOf": [{"enum": ["json", "", None]}, {"type": "object"}]},
    )
    options: Options | None = None
    think: bool | str | None = Field(
        None, description="false: the model's thinking is left out of the answer"
    )
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, json_schema_extra=field_schemas.TOP_LOGPROBS)
    keep_alive: Any = Field(None, description="ignored: the model is never unloaded")


class OllamaChatRequest(CommonFields):
    """POST /api/chat."""

    messages: list[Any] | None = Field(None, description="role, content, thinking, tool_calls")
    tools: list[Any] | None = None


class OllamaGenerateRequest(CommonFields):
    """POST /api/generate."""

    prompt: str | None = None
    system: str | None = None
    raw: bool | None = Field(None, description="true: the prompt is text, not a user's message")
    images: list[Any] | None = None
    suffix: str | None = None
    template: str | None = None
    context: list[Any] | None = None


class OllamaShowRequest(BaseModel):
    """POST /api/show."""

    model_config = ConfigDict(strict=True)

    model: str | None = None
    name: str | None = Field(None, description="the older name of model")
