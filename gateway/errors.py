"""What does a client see when something is wrong? OpenAI's error shape, never internals."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from gateway.generate.drain import retry_after

INVALID_REQUEST = "invalid_request_error"
AUTHENTICATION = "authentication_error"
PERMISSION = "permission_error"
NOT_FOUND = "not_found_error"
RATE_LIMIT = "rate_limit_error"
UNAVAILABLE = "service_unavailable_error"
SERVER = "server_error"


class ApiError(Exception):
    """An error for the client: HTTP status and the four fields of OpenAI's `error` object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID_REQUEST,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self, request_id: str | None = None) -> dict[str, Any]:
        """The JSON object; inside a stream it names the request, whose headers are long gone."""
        error: dict[str, Any] = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        if request_id is not None:
            error["request_id"] = request_id
        return {"error": error}

    def json(self, request_id: str | None = None) -> bytes:
        return orjson.dumps(self.body(request_id))

    def response(self) -> Response:
        return Response(
            self.json(),
            status_code=self.status,
            headers=self.headers,
            media_type="application/json",
        )


def bad_field(param: str, message: str, code: str | None = "invalid_value") -> ApiError:
    """400 naming the field."""
    return ApiError(400, f"{param}: {message}", param=param, code=code)


def unsupported(param: str, message: str = "this field is not supported") -> ApiError:
    """400 for a field that would change the answer and is not served."""
    return bad_field(param, message, "unsupported_parameter")


def model_not_found(name: object) -> ApiError:
    what = (
        "The request names no model"
        if name is None
        else f"The model {repr(name)[:100]} does not exist"
    )
    return ApiError(
        404,
        f"{what}; GET /v1/models lists what is served",
        param="model",
        code="model_not_found",
    )


def context_exceeded(
    param: str, num_tokens: int, max_model_len: int, *, at_least: bool
) -> ApiError:
    """400 for a prompt that leaves no room for one output token.

    Agents know by the wording that they must shorten the conversation, few look at the code; the
    words between the commas and full stops here are those that their lists have in common.
    """
    count = f"at least {num_tokens}" if at_least else str(num_tokens)
    return ApiError(
        400,
        f"{param}: This model's maximum context length is {max_model_len} tokens, prompt and "
        f"output together. However, your prompt contains {count} input tokens. "
        "Please reduce the length of the messages.",
        param=param,
        code="context_length_exceeded",
    )


def not_ready(reason: str, wait_s: float = 0.0) -> ApiError:
    """503; `wait_s` is when it may be better, for Retry-After."""
    return ApiError(
        503,
        f"The model is not ready: {reason}",
        type=UNAVAILABLE,
        code="not_ready",
        headers={"Retry-After": str(retry_after(wait_s))},
    )


def overloaded(message: str, wait_s: float = 0.0) -> ApiError:
    """429; `wait_s` is when there may be room, for Retry-After."""
    return ApiError(
        429,
        message,
        type=RATE_LIMIT,
        code="overloaded",
        headers={"Retry-After": str(retry_after(wait_s))},
    )


def internal() -> ApiError:
    """For what nobody expected: the log has the details."""
    return ApiError(
        500,
        "Internal error; the gateway's log has the details under the request id",
        type=SERVER,
        code="internal_error",
    )
