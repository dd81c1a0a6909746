"""Which paths speak the Responses API?"""

from gateway.http.dialect import Dialect
from gateway.responses.fields import InputTokensRequest, ResponsesRequest
from gateway.responses.responses import count_input_tokens, create_response
from gateway.shapes.openai_errors import OpenAIErrors

RESPONSES = Dialect(
    errors=OpenAIErrors(),
    prefixes=("/v1/responses",),
    posts=(
        ("/v1/responses", create_response, ResponsesRequest),
        ("/v1/responses/input_tokens", count_input_tokens, InputTokensRequest),
    ),
)
