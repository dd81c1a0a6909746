"""How does Anthropic's API report errors? As an `error` object with a type and a message."""

from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict

from gateway.errors import ContextExceeded, Kind, RequestError
from gateway.http.errors import STATUS

OVERLOADED_STATUS = 529
"""Anthropic's own status; its clients retry it."""

_TYPES = {
    Kind.UNAUTHENTICATED: "authentication_error",
    Kind.FORBIDDEN: "permission_error",
    Kind.NOT_FOUND: "not_found_error",
    Kind.MODEL_NOT_FOUND: "not_found_error",
    Kind.TOO_LARGE: "request_too_large",
    Kind.OVERLOADED: "rate_limit_error",
    Kind.NOT_READY: "overloaded_error",
    Kind.TIMED_OUT: "timeout_error",
    Kind.INTERNAL: "api_error",
    Kind.BROKEN_UPSTREAM: "api_error",
}
"""All others are `invalid_request_error`."""


class AnthropicErrorObject(BaseModel):
    """What went wrong."""

    model_config = ConfigDict(extra="forbid")

    type: str
    message: str


class AnthropicError(BaseModel):
    """The body of an error, and a stream's last event."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["error"]
    error: AnthropicErrorObject
    request_id: str | None


class AnthropicErrors:
    """The dialect's `ErrorShape`."""

    def status(self, error: RequestError) -> int:
        return OVERLOADED_STATUS if error.kind is Kind.NOT_READY else STATUS[error.kind]

    def body(self, error: RequestError, request_id: str | None) -> bytes:
        return orjson.dumps({"type": "error", "error": _object(error), "request_id": request_id})


def error_event(error: RequestError, request_id: str) -> bytes:
    """A stream's last event."""
    return b"event: error\ndata: " + AnthropicErrors().body(error, request_id) + b"\n\n"


def _object(error: RequestError) -> dict[str, Any]:
    message = error.message
    if isinstance(error, ContextExceeded):  # clients read the numbers, and compact the conversation
        message = f"prompt is too long: {error.num_tokens} tokens > {error.max_model_len} maximum"
    return {"type": _TYPES.get(error.kind, "invalid_request_error"), "message": message}
