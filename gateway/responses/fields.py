"""Which fields may a request carry, and of which types?

Types are strict, and `null` means absent. Every field that is not listed is accepted and ignored.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gateway.generate.parameters import range_text
from gateway.limits import Limits


class TextConfig(BaseModel):
    """What the answer must be."""

    model_config = ConfigDict(strict=True)

    format: Any = Field(
        None, description="{'type': 'text'}, 'json_object' or 'json_schema' with its schema"
    )
    verbosity: Any = None


class InputTokensRequest(BaseModel):
    """POST /v1/responses/input_tokens."""

    model_config = ConfigDict(strict=True, protected_namespaces=())

    model: str = Field(description="As listed by GET /v1/models")
    input: Any = Field(None, description="string, or items: messages, reasoning, calls, outputs")
    instructions: str | None = Field(None, description="a system message before the input")
    tools: list[Any] | None = Field(
        None, description="function, custom and namespace; other types are left out with a warning"
    )
    tool_choice: Any = Field(
        None,
        description="'auto', 'none', 'required', {'type': 'function' or 'custom', 'name'} or "
        "{'type': 'allowed_tools', 'mode', 'tools'}",
    )
    prompt_cache_key: Any = Field(
        None, description="text: requests of one conversation prefer one attention service"
    )
    user: Any = Field(None, description="the same, where prompt_cache_key is not given")
    previous_response_id: str | None = None
    conversation: Any = None
    truncation: str | None = Field(
        None, description="'auto' or 'disabled'; nothing is ever dropped, 'auto' gets a warning"
    )


class ResponsesRequest(InputTokensRequest):
    """POST /v1/responses."""

    stream: bool | None = None
    text: TextConfig | None = None
    max_output_tokens: int | None = Field(
        None, description="at least 1; cut to what is left of the context"
    )
    parallel_tool_calls: bool | None = Field(None, description="false: at most one call")
    include: list[Any] | None = Field(
        None, description="reasoning.encrypted_content, message.output_text.logprobs"
    )
    top_logprobs: int | None = Field(None, description=f"0 to {Limits.top_logprobs}")
    reasoning: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = Field(
        None, description="up to 16 texts of up to 512 characters; answered as it is"
    )
    store: bool | None = None
    background: bool | None = None
    prompt: Any = None
    safety_identifier: Any = None
    temperature: float | None = Field(None, description=f"{range_text('temperature')}; 0 is greedy")
    top_p: float | None = Field(None, description="above 0, up to 1")
    top_k: int | None = Field(None, description="0 or -1: all tokens")
    min_p: float | None = Field(None, description=f"{range_text('min_p')}; 0 is off")
    repetition_penalty: float | None = Field(
        None, description=f"{range_text('repetition_penalty')}; 1 is off"
    )
    presence_penalty: float | None = Field(None, description=range_text("presence_penalty"))
    frequency_penalty: float | None = Field(None, description=range_text("frequency_penalty"))
    seed: int | None = Field(None, description="64 bits; negative ones are taken modulo 2^64")
