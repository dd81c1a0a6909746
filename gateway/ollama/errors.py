"""How does Ollama's API report errors? As one text under `error`."""

import orjson
from pydantic import BaseModel, ConfigDict

from gateway.errors import RequestError
from gateway.http.errors import STATUS


class OllamaError(BaseModel):
    """The body of an error, and a stream's last line."""

    model_config = ConfigDict(extra="forbid")

    error: str


class OllamaErrors:
    """The dialect's `ErrorShape`."""

    def status(self, error: RequestError) -> int:
        return STATUS[error.kind]

    def body(self, error: RequestError, request_id: str | None) -> bytes:
        return orjson.dumps({"error": error.message})
