"""Which paths speak the Responses API?"""

from gateway.http.dialect import Dialect
from gateway.responses.answers import ANSWERS, CONVERSATION, DELETED
from gateway.responses.conversations import (
    ConversationRequest,
    ItemsRequest,
    MetadataRequest,
    add_items,
    create_conversation,
    delete_conversation,
    delete_item,
    get_conversation,
    get_item,
    list_items,
    update_conversation,
)
from gateway.responses.fields import InputTokensRequest, ResponsesRequest
from gateway.responses.paging import PAGE
from gateway.responses.responses import count_input_tokens, create_response
from gateway.responses.stored import (
    EVENTS,
    cancel_response,
    delete_response,
    get_response,
    list_input_items,
)
from gateway.shapes.openai_errors import OPENAI_ERRORS, OpenAIError

RESPONSES = Dialect(
    errors=OPENAI_ERRORS,
    error_model=OpenAIError,
    answers=ANSWERS,
    queries={
        "/v1/responses/{response_id}": EVENTS,
        "/v1/responses/{response_id}/input_items": PAGE,
        "/v1/conversations/{conversation_id}/items": PAGE,
    },
    prefixes=("/v1/responses", "/v1/conversations"),
    gets=(
        ("/v1/responses/{response_id}", get_response),
        ("/v1/responses/{response_id}/input_items", list_input_items),
        ("/v1/conversations/{conversation_id}", get_conversation),
        ("/v1/conversations/{conversation_id}/items", list_items),
        ("/v1/conversations/{conversation_id}/items/{item_id}", get_item),
    ),
    deletes=(
        ("/v1/responses/{response_id}", delete_response, DELETED),
        ("/v1/conversations/{conversation_id}", delete_conversation, DELETED),
        ("/v1/conversations/{conversation_id}/items/{item_id}", delete_item, CONVERSATION),
    ),
    posts=(
        ("/v1/responses", create_response, ResponsesRequest),
        ("/v1/responses/input_tokens", count_input_tokens, InputTokensRequest),
        ("/v1/responses/{response_id}/cancel", cancel_response, None),
        ("/v1/conversations", create_conversation, ConversationRequest),
        ("/v1/conversations/{conversation_id}", update_conversation, MetadataRequest),
        ("/v1/conversations/{conversation_id}/items", add_items, ItemsRequest),
    ),
)
