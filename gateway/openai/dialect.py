"""Which paths speak OpenAI's API?"""

from gateway.http.dialect import Dialect
from gateway.openai.answers import ANSWERS
from gateway.openai.chat import chat_completions, minimax_chat_completions
from gateway.openai.completions import completions
from gateway.openai.model_list import get_model, list_models
from gateway.openai.models import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from gateway.openai.server_facts import props, tokenizer_info
from gateway.openai.tokenize import detokenize, tokenize
from gateway.shapes.openai_errors import OPENAI_ERRORS, OpenAIError

OPENAI = Dialect(
    errors=OPENAI_ERRORS,
    answers=ANSWERS,
    error_model=OpenAIError,
    gets=(
        ("/v1/models", list_models),
        ("/v1/models/{model_id:path}", get_model),
        ("/tokenizer_info", tokenizer_info),
        ("/props", props),
    ),
    posts=(
        ("/v1/chat/completions", chat_completions, ChatRequest),
        ("/v1/text/chat/completions", minimax_chat_completions, ChatRequest),
        ("/v1/completions", completions, CompletionRequest),
        ("/tokenize", tokenize, TokenizeRequest),
        ("/detokenize", detokenize, DetokenizeRequest),
    ),
)
