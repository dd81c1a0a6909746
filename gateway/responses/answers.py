"""What do this API's answers hold? For the description of the API; the replies write them.

Nothing is listed that is never sent, and the tests compare every kind of answer with these models.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from gateway.http.dialect import Answer
from gateway.shapes.logprobs import TokenLogprob


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CachedDetails(_Told):
    """Of the prompt's tokens."""

    cached_tokens: int
    cache_write_tokens: Literal[0]


class ThoughtDetails(_Told):
    """Of the answer's tokens."""

    reasoning_tokens: int


class ResponseUsage(_Told):
    """How many tokens the request took."""

    input_tokens: int
    input_tokens_details: CachedDetails
    output_tokens: int
    output_tokens_details: ThoughtDetails
    total_tokens: int


class OutputText(_Told):
    """What the model says."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[TokenLogprob]


class ReasoningText(_Told):
    """What the model thinks."""

    type: Literal["reasoning_text"]
    text: str


ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputMessage(_Told):
    """Text of an answer."""

    id: str
    type: Literal["message"]
    status: ItemStatus
    role: Literal["assistant"]
    content: list[OutputText]


class ReasoningItem(_Told):
    """Thinking before it; sealed too, where that was asked for."""

    id: str
    type: Literal["reasoning"]
    status: ItemStatus
    summary: list[Any]
    content: list[ReasoningText]
    encrypted_content: str | None


class _Call(_Told):
    id: str
    status: ItemStatus
    call_id: str
    name: str
    namespace: str | None = None


class FunctionCall(_Call):
    """A call of a function."""

    type: Literal["function_call"]
    arguments: str


class CustomToolCall(_Call):
    """A call of a custom tool."""

    type: Literal["custom_tool_call"]
    input: str


OutputItem = OutputMessage | ReasoningItem | FunctionCall | CustomToolCall


class ResponseFailure(_Told):
    """Why a response has failed."""

    code: str
    message: str


class Incomplete(_Told):
    """Why a response has ended before its model did."""

    reason: Literal["max_output_tokens"]


class ConversationId(_Told):
    """The conversation that a response belongs to."""

    id: str


class ResponseReasoning(_Told):
    """What was asked of the thinking."""

    effort: Any
    summary: None


class ResponseText(_Told):
    """What the answer was to be."""

    format: dict[str, Any]


class ResponseAnswer(_Told):
    """A response, as far as it is."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool
    conversation: ConversationId | None
    error: ResponseFailure | None
    incomplete_details: Incomplete | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: ResponseReasoning
    service_tier: Literal["default"]
    store: bool
    temperature: float
    text: ResponseText
    tool_choice: Any
    tools: list[Any]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"]
    usage: ResponseUsage | None
    user: Any
    prompt_cache_key: Any
    safety_identifier: Any
    warnings: list[str]
    """What of the request this server did not do; not one of OpenAI's."""


class ResponseEvent(_Told):
    """An event of a streamed response; `type` says which fields it has."""

    type: Literal[
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.output_item.done",
        "response.content_part.added",
        "response.content_part.done",
        "response.output_text.delta",
        "response.output_text.done",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.custom_tool_call_input.delta",
        "response.custom_tool_call_input.done",
        "response.completed",
        "response.incomplete",
        "response.failed",
        "error",
    ]
    sequence_number: int
    response: ResponseAnswer | None = None
    item_id: str | None = None
    output_index: int | None = None
    content_index: int | None = None
    item: OutputItem | None = None
    part: OutputText | ReasoningText | None = None
    delta: str | None = None
    text: str | None = None
    logprobs: list[TokenLogprob] | None = None
    name: str | None = None
    arguments: str | None = None
    input: str | None = None
    code: str | None = None
    message: str | None = None
    param: str | None = None


class InputTokens(_Told):
    """What the prompt of a response would take."""

    object: Literal["response.input_tokens"]
    input_tokens: int


class KeptItem(BaseModel):
    """An item as a client sent it, or as it was answered."""

    id: str


class ItemPage(_Told):
    """A page of items."""

    object: Literal["list"]
    data: list[KeptItem]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ConversationAnswer(_Told):
    """A conversation, without its items."""

    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str]


class Deleted(_Told):
    """What is kept no longer."""

    id: str
    object: Literal["response", "conversation.deleted"]
    deleted: Literal[True]


DELETED = Answer(whole=Deleted)
CONVERSATION = Answer(whole=ConversationAnswer)
_STREAMED = Answer(whole=ResponseAnswer, event=ResponseEvent)
_ITEMS = Answer(whole=ItemPage)

ANSWERS = {
    "/v1/responses": _STREAMED,
    "/v1/responses/input_tokens": Answer(whole=InputTokens),
    "/v1/responses/{response_id}": _STREAMED,
    "/v1/responses/{response_id}/cancel": Answer(whole=ResponseAnswer),
    "/v1/responses/{response_id}/input_items": _ITEMS,
    "/v1/conversations": CONVERSATION,
    "/v1/conversations/{conversation_id}": CONVERSATION,
    "/v1/conversations/{conversation_id}/items": _ITEMS,
    "/v1/conversations/{conversation_id}/items/{item_id}": Answer(whole=KeptItem),
}
