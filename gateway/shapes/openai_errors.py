"""How do OpenAI's APIs report errors? One `error` object with type, param and code."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from gateway.errors import Kind, RequestError
from gateway.shapes.error_objects import ErrorObject, ErrorObjects

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


class OpenAIErrorObject(ErrorObject):
    """What went wrong, and of which kind it is."""

    type: str


class OpenAIError(BaseModel):
    """The body of an error."""

    model_config = ConfigDict(extra="forbid")

    error: OpenAIErrorObject


def _told(error: RequestError) -> dict[str, Any]:
    hint = "; GET /v1/models lists what is served" if error.kind is Kind.MODEL_NOT_FOUND else ""
    return {
        "message": error.message + hint,
        "type": _TYPES.get(error.kind, "invalid_request_error"),
        "param": error.field,
        "code": error.reason,
    }


OPENAI_ERRORS = ErrorObjects(_told)
