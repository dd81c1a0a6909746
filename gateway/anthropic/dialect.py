"""Which paths speak Anthropic's API?"""

from gateway.anthropic.answers import ANSWERS
from gateway.anthropic.errors import AnthropicError, AnthropicErrors
from gateway.anthropic.fields import CountTokensRequest, MessagesRequest
from gateway.anthropic.messages import count_tokens, messages
from gateway.anthropic.model_list import get_model, list_models
from gateway.http.dialect import Dialect

ANTHROPIC = Dialect(
    errors=AnthropicErrors(),
    answers=ANSWERS,
    error_model=AnthropicError,
    prefixes=("/v1/messages",),
    header=b"anthropic-version",
    request_id_header="request-id",
    gets=(
        ("/v1/models", list_models),
        ("/v1/models/{model_id:path}", get_model),
    ),
    posts=(
        ("/v1/messages", messages, MessagesRequest),
        ("/v1/messages/count_tokens", count_tokens, CountTokensRequest),
    ),
)
