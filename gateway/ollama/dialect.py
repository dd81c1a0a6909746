"""Which paths speak Ollama's API?"""

from gateway.http.dialect import Dialect
from gateway.ollama.answers import ANSWERS
from gateway.ollama.chat import chat, generate
from gateway.ollama.errors import OllamaError, OllamaErrors
from gateway.ollama.fields import OllamaChatRequest, OllamaGenerateRequest, OllamaShowRequest
from gateway.ollama.model_list import list_models, running_models, show, version

_FIXED = "this server has the models that it was started with; it fetches, makes and removes none"

OLLAMA = Dialect(
    errors=OllamaErrors(),
    answers=ANSWERS,
    error_model=OllamaError,
    prefixes=("/api",),
    stream_type="application/x-ndjson",
    gets=(
        ("/api/tags", list_models),
        ("/api/ps", running_models),
        ("/api/version", version),
    ),
    posts=(
        ("/api/chat", chat, OllamaChatRequest),
        ("/api/generate", generate, OllamaGenerateRequest),
        ("/api/show", show, OllamaShowRequest),
    ),
    refusals=tuple(
        (f"/api/{name}", _FIXED)
        for name in ("pull", "push", "create", "copy", "delete", "blobs/{digest}")
    ),
)
