"""How do OpenAI's APIs report errors? One `error` object with type, param and code."""

from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from gateway.errors import Kind, RequestError
from gateway.http.errors import STATUS

_TYPES = {
    Kind.UNAUTHENTICATED: "authentication_error",
    Kind.FORBIDDEN: "permission_error",
    Kind.NOT_FOUND: "not_found_error",
    Kind.OVERLOADED: "rate_limit_error",
    Kind.NOT_READY: "service_unavailable_error",
    Kind.INTERNAL: "server_error",
    Kind.BROKEN_UPSTREAM: "server_error",
    Kind.TIMED_OUT: "server_error",
}
"""All others are `invalid_request_error`."""


class OpenAIErrorObject(BaseModel):
    """What went wrong."""

    model_config = ConfigDict(extra="forbid")

    message: str
    type: str
    param: str | None
    code: str | None
    request_id: str | None = None
    """In a stream, whose headers were sent before."""


class OpenAIError(BaseModel):
    """The body of an error."""

    model_config = ConfigDict(extra="forbid")

    error: OpenAIErrorObject


class OpenAIErrors:
    """The dialect's `ErrorShape`."""

    def status(self, error: RequestError) -> int:
        return STATUS[error.kind]

    def body(self, error: RequestError, request_id: str | None) -> bytes:
        """Without the id, which is in a header."""
        return orjson.dumps({"error": _object(error)})


def error_event(error: RequestError, request_id: str) -> bytes:
    """A stream's last event; with the id, since the headers were sent long before."""
    told = {**_object(error), "request_id": request_id}
    return b"data: " + orjson.dumps({"error": told}) + b"\n\n"


def _object(error: RequestError) -> dict[str, Any]:
    hint = "; GET /v1/models lists what is served" if error.kind is Kind.MODEL_NOT_FOUND else ""
    return {
        "message": error.message + hint,
        "type": _TYPES.get(error.kind, "invalid_request_error"),
        "param": error.field,
        "code": error.reason,
    }
