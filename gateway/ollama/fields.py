"""Which fields may a request carry, and of which types?

Types are strict, and `null` means absent. Fields and options that are not listed are about how a
model is loaded: they are accepted and ignored.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Options(BaseModel):
    """Sampling. Absent ones are the model's own."""

    model_config = ConfigDict(strict=True)

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    num_predict: int | None = None
    stop: Any = None


class CommonFields(BaseModel):
    """What chat and generate have in common."""

    model_config = ConfigDict(strict=True, protected_namespaces=())

    model: str = Field(description="As listed by GET /api/tags")
    stream: bool | None = Field(None, description="default true: a line of JSON for each part")
    format: Any = Field(None, description="'json' or a JSON Schema")
    options: dict[str, Any] | None = Field(
        None,
        description="temperature, top_k, top_p, min_p, repeat_penalty, presence_penalty, "
        "frequency_penalty, seed, stop, num_predict (0 and less: no limit); others are ignored",
    )
    think: bool | str | None = Field(
        None, description="false: the model's thinking is left out of the answer"
    )
    logprobs: bool | None = None
    top_logprobs: int | None = None
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
