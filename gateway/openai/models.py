"""Which fields may a request carry, and of which types?

Types are strict: a bool is not a number, "0.5" is not 0.5. `null` means absent wherever a field
is optional, as in OpenAI's API. Ranges are checked in `sampling.py`, fields that are refused in
`field_rules.py`.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gateway.errors import bad_field
from gateway.limits import Limits
from gateway.shapes import field_schemas
from gateway.shapes.sampling_numbers import SamplingNumbers, number

TokenLimit = Annotated[int | None, AfterValidator(lambda value: None if value == -1 else value)]
"""-1, by which many clients ask for as much as there is room for, means the same as no limit."""


class StreamOptions(BaseModel):
    """Of a streamed answer."""

    model_config = ConfigDict(strict=True)

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class SamplingFields(SamplingNumbers):
    """What chat and completions have in common."""

    model_config = ConfigDict(strict=True, protected_namespaces=())

    model: str = Field(description="As listed by GET /v1/models")
    repetition_penalty: float | None = number("repetition_penalty", "; 1 is off")
    logit_bias: dict[str, float] | None = Field(
        None,
        description="token id -> -100 to 100",
        json_schema_extra=field_schemas.LOGIT_BIAS,
    )
    seed: int | None = Field(None, description="64 bits; negative ones are taken modulo 2^64")
    max_tokens: TokenLimit = Field(
        None,
        description="default, -1 and more than that: what is left of the context",
        json_schema_extra={"minimum": -1},
    )
    min_tokens: int | None = Field(
        None, description="no stop token before this many", json_schema_extra={"minimum": 0}
    )
    stop: Any = Field(
        None,
        description=f"string, or up to {Limits.stops} strings of up to {Limits.stop_chars} "
        "characters",
        json_schema_extra=field_schemas.STOP,
    )
    stop_token_ids: list[int] | None = Field(
        None,
        description=f"up to {Limits.stop_token_ids}",
        json_schema_extra={"items": field_schemas.TOKEN_ID, "maxItems": Limits.stop_token_ids},
    )
    ignore_eos: bool | None = None
    bad_words: list[str] | None = Field(
        None,
        description=f"texts not to write, as the tokenizer spells them: up to {Limits.bad_words} "
        f"of up to {Limits.bad_word_chars} characters",
        json_schema_extra={
            "items": {"type": "string", "minLength": 1, "maxLength": Limits.bad_word_chars},
            "maxItems": Limits.bad_words,
        },
    )
    allowed_token_ids: list[int] | None = Field(
        None,
        description=f"no other token is sampled; up to {Limits.allowed_token_ids}",
        json_schema_extra={"items": field_schemas.TOKEN_ID, "maxItems": Limits.allowed_token_ids},
    )
    n: int | None = Field(
        None,
        description=f"1 to {Limits.choices}",
        json_schema_extra={"minimum": 1, "maximum": Limits.choices},
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    cache_salt: str | None = Field(
        None,
        description="cached prompts are shared with the same salt and API key only",
        json_schema_extra={"maxLength": Limits.cache_salt_chars},
    )
    prompt_cache_key: Any = Field(
        None, description="text: requests of one conversation prefer one attention service"
    )
    user: Any = Field(None, description="the same, where prompt_cache_key is not given")
    response_format: Any = Field(
        None,
        description="{'type': 'text'}, 'json_object' or 'json_schema' with its schema",
        json_schema_extra=field_schemas.OBJECT,
    )
    structured_outputs: Any = Field(
        None,
        description="one of {'json': schema}, json_object, regex, choice, grammar",
        json_schema_extra=field_schemas.OBJECT,
    )
    return_token_ids: bool | None = Field(
        None, description="add each choice's token_ids, a stop token included, and its stop_reason"
    )
    expertmesh_timings: bool | None = Field(
        None, description="add where the time went to the answer, in milliseconds"
    )


class ChatRequest(SamplingFields):
    """POST /v1/chat/completions."""

    messages: list[Any] = Field(
        description="OpenAI messages; thinking in any of its forms",
        json_schema_extra=field_schemas.MESSAGES,
    )
    max_completion_tokens: TokenLimit = Field(
        None, description="the same as max_tokens", json_schema_extra={"minimum": -1}
    )
    tools: list[Any] | None = Field(None, json_schema_extra=field_schemas.TOOLS)
    tool_choice: Any = Field(
        None,
        description="'auto', 'none', 'required', {'type': 'function', 'function': {'name'}} or "
        "{'type': 'allowed_tools', 'allowed_tools': {'mode', 'tools'}}",
        json_schema_extra=field_schemas.TOOL_CHOICE,
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="ignored where the model's template has no such variable"
    )
    continue_final_message: bool | None = Field(
        None, description="true: the answer goes on from the last message, an assistant's"
    )
    add_generation_prompt: bool | None = Field(
        None, description="true, or false with continue_final_message"
    )
    parallel_tool_calls: bool | None = Field(None, description="false: at most one call")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(
        None,
        description=f"0 to {Limits.top_logprobs}",
        json_schema_extra=field_schemas.TOP_LOGPROBS,
    )
    reasoning_split: bool | None = Field(
        None, description="false: thinking stays in content between <think> tags"
    )


class CompletionRequest(SamplingFields):
    """POST /v1/completions."""

    prompt: Any = Field(
        description="string, strings, token ids, or lists of token ids",
        json_schema_extra=field_schemas.PROMPT,
    )
    echo: bool | None = Field(None, description="repeat the prompt; with logprobs also its own")
    logprobs: int | None = Field(
        None,
        description=f"0 to {Limits.top_logprobs} alternatives for each token",
        json_schema_extra=field_schemas.TOP_LOGPROBS,
    )
    return_tokens_as_token_ids: bool | None = Field(
        None, description="logprobs name tokens as token_id:N, exact where their text is not"
    )


class TokenizeRequest(BaseModel):
    """POST /tokenize: exactly one of prompt and messages."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra=field_schemas.one_of(
            prompt={"type": "string"}, messages={"type": "array", "items": {}}
        ),
    )

    model: str | None = None
    prompt: str | None = None
    messages: list[Any] | None = Field(None, json_schema_extra=field_schemas.MESSAGES)
    tools: list[Any] | None = Field(None, description="of messages; beside a prompt ignored")
    add_generation_prompt: bool | None = None


class DetokenizeRequest(BaseModel):
    """POST /detokenize."""

    model_config = ConfigDict(strict=True)

    model: str | None = None
    tokens: list[int] = Field(json_schema_extra={"items": field_schemas.TOKEN_ID})


def stream_options_of(fields: SamplingFields) -> StreamOptions:
    """The stream options. Raises RequestError when there is no stream."""
    if fields.stream_options is None:
        return StreamOptions()
    if not fields.stream:
        raise bad_field("stream_options", "needs stream: true")
    return fields.stream_options
