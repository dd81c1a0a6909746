"""What can go wrong with a request? Kinds of errors that no dialect owns.

Each dialect decides what a kind looks like in its API: status, shape and names.
"""

from enum import Enum


class Kind(Enum):
    """What sort of error it is; the message gives the details."""

    INVALID_REQUEST = "invalid request"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not found"
    MODEL_NOT_FOUND = "model not found"
    TOO_LARGE = "too large"
    UNSUPPORTED_MEDIA = "unsupported media"
    OVERLOADED = "overloaded"
    CLIENT_GONE = "client gone"
    NOT_READY = "not ready"
    TIMED_OUT = "timed out"
    BROKEN_UPSTREAM = "broken upstream"
    INTERNAL = "internal"


class RequestError(Exception):
    """A request that ends without the answer it asked for.

    Args:
        message: for the client; never internals.
        field: the part of the request that is wrong, as the client names it.
        reason: a stable name for programs.
        retry_after_s: when a retry may succeed; None where a retry does not help.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        field: str | None = None,
        reason: str | None = None,
        retry_after_s: float | None = None,
    ):
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.field = field
        self.reason = reason
        self.retry_after_s = retry_after_s


class ContextExceeded(RequestError):
    """A prompt that leaves no room for one output token.

    Agents see by the wording, seldom by the reason, that they must shorten the conversation: these
    phrases are those that their lists have in common.
    """

    def __init__(self, field: str, num_tokens: int, max_model_len: int, *, at_least: bool):
        """`at_least`: the prompt was refused by its length in bytes, before it was tokenised."""
        count = f"at least {num_tokens}" if at_least else str(num_tokens)
        super().__init__(
            Kind.INVALID_REQUEST,
            f"{field}: This model's maximum context length is {max_model_len} tokens, prompt and "
            f"output together. However, your prompt contains {count} input tokens. "
            "The prompt is too long: please reduce the length of the messages.",
            field=field,
            reason="context_length_exceeded",
        )
        self.num_tokens = num_tokens
        self.max_model_len = max_model_len


def bad_field(field: str, message: str, reason: str = "invalid_value") -> RequestError:
    """An invalid request; the message begins with the field."""
    return RequestError(Kind.INVALID_REQUEST, f"{field}: {message}", field=field, reason=reason)


def unsupported(field: str, message: str = "this field is not supported") -> RequestError:
    """For a field that would change the answer and is not served."""
    return bad_field(field, message, "unsupported_parameter")


def model_not_found(name: object) -> RequestError:
    given = f"The model {repr(name)[:100]} does not exist"
    message = "The request names no model" if name is None else given
    return RequestError(Kind.MODEL_NOT_FOUND, message, field="model", reason="model_not_found")


def not_ready(reason: str, wait_s: float = 0.0) -> RequestError:
    """`wait_s`: when a retry may succeed."""
    message = f"The model is not ready: {reason}"
    return RequestError(Kind.NOT_READY, message, reason="not_ready", retry_after_s=wait_s)


def overloaded(message: str, wait_s: float = 0.0) -> RequestError:
    """`wait_s`: when there may be room."""
    return RequestError(Kind.OVERLOADED, message, reason="overloaded", retry_after_s=wait_s)


def internal() -> RequestError:
    """For an unexpected exception; the log has the details."""
    return RequestError(
        Kind.INTERNAL,
        "Internal error; the gateway's log has the details under the request id",
        reason="internal_error",
    )
