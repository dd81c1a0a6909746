"""What do this API's answers hold? For the description of the API; the replies write them.

Nothing is listed that is never sent, and the tests compare every kind of answer with these models.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from gateway.http.dialect import Answer


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MessageUsage(_Told):
    """How many tokens the request took."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    service_tier: Literal["standard"]


class TextBlock(_Told):
    """A part of the answer."""

    type: Literal["text"]
    text: str


class ThinkingBlock(_Told):
    """What came before it; empty where only the signature is shown."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class ToolUseBlock(_Told):
    """A call of a tool."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


Block = TextBlock | ThinkingBlock | ToolUseBlock
StopReason = Literal[
    "end_turn", "max_tokens", "tool_use", "stop_sequence", "model_context_window_exceeded"
]


class MessageAnswer(_Told):
    """A whole answer."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[Block]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage


class BlockDelta(_Told):
    """What is new of a block: one of the texts, as the type says."""

    type: Literal["text_delta", "thinking_delta", "input_json_delta", "signature_delta"]
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    signature: str | None = None


class MessageDelta(_Told):
    """How the answer ended."""

    stop_reason: StopReason | None
    stop_sequence: str | None


class MessageEvent(_Told):
    """An event of a streamed answer; `type` says which fields it has."""

    type: Literal[
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "ping",
    ]
    message: MessageAnswer | None = None
    index: int | None = None
    content_block: Block | None = None
    delta: BlockDelta | MessageDelta | None = None
    usage: MessageUsage | None = None


class TokenCount(_Told):
    """What the prompt of a message would take."""

    input_tokens: int


class ServedModel(_Told):
    """A name under which the model is served."""

    type: Literal["model"]
    id: str
    display_name: str
    created_at: str
    max_input_tokens: int


class ServedModels(_Told):
    """All of them, on one page."""

    data: list[ServedModel]
    has_more: Literal[False]
    first_id: str
    last_id: str


ANSWERS = {
    "/v1/models": Answer(whole=ServedModels),
    "/v1/models/{model_id:path}": Answer(whole=ServedModel),
    "/v1/messages": Answer(whole=MessageAnswer, event=MessageEvent),
    "/v1/messages/count_tokens": Answer(whole=TokenCount),
}
