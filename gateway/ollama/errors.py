"""How does Ollama's API report errors? As one text under `error`."""

import orjson

from gateway.errors import RequestError
from gateway.http.errors import STATUS


class OllamaErrors:
    """The dialect's `ErrorShape`."""

    def status(self, error: RequestError) -> int:
        return STATUS[error.kind]

    def body(self, error: RequestError, request_id: str | None) -> bytes:
        return orjson.dumps({"error": error.message})
