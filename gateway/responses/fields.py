"""Which fields may a request carry, and of which types?

Types are strict, and `null` means absent. Every field that is not listed is accepted and ignored.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from gateway.limits import Limits
from gateway.shapes import field_schemas
from gateway.shapes.sampling_numbers import SamplingNumbers, number

MOST_METADATA, MOST_KEY_CHARS, MOST_VALUE_CHARS = 16, 64, 512
METADATA: JsonDict = {
    "maxProperties": MOST_METADATA,
    "propertyNames": {"maxLength": MOST_KEY_CHARS},
    "additionalProperties": {"type": "string", "maxLength": MOST_VALUE_CHARS},
}
ITEMS: JsonDict = {"items": {"type": "object"}}
_FORMAT: JsonDict = {
    "anyOf": [
        {
            "type": "object",
            "required": ["type"],
            "properties": {"type": {"enum": ["text", "json_object", "json_schema"]}},
        },
        {"type": "null"},
    ]
}
_TOOLS: JsonDict = {
    "items": {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"type": "string"}},
    }
}
_CONVERSATION: JsonDict = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
        {"type": "null"},
    ]
}


class TextConfig(BaseModel):
    """What the answer must be."""

    model_config = ConfigDict(strict=True)

    format: Any = Field(
        None,
        description="{'type': 'text'}, 'json_object' or 'json_schema' with its schema",
        json_schema_extra=_FORMAT,
    )
    verbosity: Any = None


class InputTokensRequest(BaseModel):
    """POST /v1/responses/input_tokens."""

    model_config = ConfigDict(strict=True, protected_namespaces=())

    model: str = Field(description="As listed by GET /v1/models")
    input: Any = Field(
        None,
        description="string, or items: messages, reasoning, calls, outputs",
        json_schema_extra={
            "anyOf": [{"type": "string"}, {"type": "array", **ITEMS}, {"type": "null"}]
        },
    )
    instructions: str | None = Field(None, description="a system message before the input")
    tools: list[Any] | None = Field(
        None,
        description="function, custom and namespace; other types are left out with a warning",
        json_schema_extra=_TOOLS,
    )
    tool_choice: Any = Field(
        None,
        description="'auto', 'none', 'required', {'type': 'function' or 'custom', 'name'} or "
        "{'type': 'allowed_tools', 'mode', 'tools'}",
        json_schema_extra=field_schemas.TOOL_CHOICE,
    )
    prompt_cache_key: Any = Field(
        None, description="text: requests of one conversation prefer one attention service"
    )
    user: Any = Field(None, description="the same, where prompt_cache_key is not given")
    previous_response_id: str | None = None
    conversation: Any = Field(None, json_schema_extra=_CONVERSATION)
    truncation: str | None = Field(
        None,
        description="nothing is ever dropped, 'auto' gets a warning",
        json_schema_extra={"enum": ["auto", "disabled", None]},
    )


class ResponsesRequest(InputTokensRequest, SamplingNumbers):
    """POST /v1/responses."""

    stream: bool | None = None
    text: TextConfig | None = None
    max_output_tokens: int | None = Field(
        None,
        description="at least 1; cut to what is left of the context",
        json_schema_extra={"minimum": 1},
    )
    parallel_tool_calls: bool | None = Field(None, description="false: at most one call")
    include: list[Any] | None = Field(
        None, description="reasoning.encrypted_content, message.output_text.logprobs"
    )
    top_logprobs: int | None = Field(
        None,
        description=f"0 to {Limits.top_logprobs}",
        json_schema_extra=field_schemas.TOP_LOGPROBS,
    )
    reasoning: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = Field(
        None, description="answered as it is", json_schema_extra=METADATA
    )
    store: bool | None = None
    background: bool | None = None
    prompt: Any = Field(
        None, description="no templates are kept", json_schema_extra={"type": "null"}
    )
    safety_identifier: Any = None
    repetition_penalty: float | None = number("repetition_penalty", "; 1 is off")
    seed: int | None = Field(None, description="64 bits; negative ones are taken modulo 2^64")
