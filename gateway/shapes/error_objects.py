"""How are errors written as one `error` object, as OpenAI's and SGLang's APIs do?"""

from collections.abc import Callable
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from gateway.errors import RequestError
from gateway.http.errors import STATUS


class ErrorObject(BaseModel):
    """What went wrong."""

    model_config = ConfigDict(extra="forbid")

    message: str
    param: str | None
    code: str | None
    request_id: str | None = None
    """In a stream, whose headers were sent before."""


class ErrorObjects:
    """The `ErrorShape` of such an API."""

    def __init__(self, told: Callable[[RequestError], dict[str, Any]]):
        """`told`: the object's members."""
        self._told = told

    def status(self, error: RequestError) -> int:
        return STATUS[error.kind]

    def body(self, error: RequestError, request_id: str | None) -> bytes:
        """Without the id, which is in a header."""
        return orjson.dumps({"error": self._told(error)})

    def event(self, error: RequestError, request_id: str) -> bytes:
        """A stream's last event; with the id, since the headers were sent long before."""
        told = {**self._told(error), "request_id": request_id}
        return b"data: " + orjson.dumps({"error": told}) + b"\n\n"
