"""Which fields may a request carry, and of which types?

Types are strict, and `null` means absent. Every field that is not listed is accepted and ignored:
clients send beta fields that mean nothing here.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gateway.limits import Limits
from gateway.shapes import field_schemas
from gateway.shapes.sampling_numbers import NucleusFields

SHOWS_THINKING = ("enabled", "adaptive")
THINKING_TYPES = (*SHOWS_THINKING, "disabled")


class Thinking(BaseModel):
    """Whether the answer shows the model's thinking. The model thinks in any case."""

    model_config = ConfigDict(strict=True)

    type: str = Field(json_schema_extra={"enum": list(THINKING_TYPES)})
    display: str | None = None


class OutputConfig(BaseModel):
    """What the answer must be."""

    model_config = ConfigDict(strict=True)

    format: Any = None


class CountTokensRequest(BaseModel):
    """POST /v1/messages/count_tokens."""

    model_config = ConfigDict(strict=True, protected_namespaces=())

    model: str = Field(description="As listed by GET /v1/models")
    messages: list[Any] = Field(description="Turns of user, assistant and system")
    system: Any = Field(None, description="string or text blocks")
    tools: list[Any] | None = Field(None, description="{'name', 'description', 'input_schema'}")
    tool_choice: Any = Field(
        None, description="{'type': 'auto' | 'any' | 'none'} or {'type': 'tool', 'name'}"
    )
    thinking: Thinking | None = Field(
        None, description="'enabled' or 'adaptive': the answer has thinking blocks"
    )
    metadata: dict[str, Any] | None = Field(
        None, description="user_id: whose requests prefer one attention service"
    )


class MessagesRequest(CountTokensRequest, NucleusFields):
    """POST /v1/messages."""

    max_tokens: int = Field(
        description="at least 1; cut to what is left of the context",
        json_schema_extra={"minimum": 1},
    )
    stop_sequences: list[Any] | None = Field(
        None,
        description=f"up to {Limits.stops} strings of up to {Limits.stop_chars} characters",
        json_schema_extra={"items": field_schemas.STOP_STRING, "maxItems": Limits.stops},
    )
    stream: bool | None = None
    output_config: OutputConfig | None = Field(
        None, description="{'format': {'type': 'json_schema', 'schema'}}"
    )
    output_format: Any = Field(None, description="the same as output_config.format")
    mcp_servers: list[Any] | None = None
    container: Any = None
