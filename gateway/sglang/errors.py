"""How does SGLang's native API report errors? As an `error` object with a message."""

from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from gateway.errors import RequestError
from gateway.http.errors import STATUS


class SGLangErrorObject(BaseModel):
    """What went wrong."""

    model_config = ConfigDict(extra="forbid")

    message: str
    param: str | None
    code: str | None
    request_id: str | None = None
    """In a stream, whose headers were sent before."""


class SGLangError(BaseModel):
    """The body of an error."""

    model_config = ConfigDict(extra="forbid")

    error: SGLangErrorObject


class SGLangErrors:
    """The dialect's `ErrorShape`."""

    def status(self, error: RequestError) -> int:
        return STATUS[error.kind]

    def body(self, error: RequestError, request_id: str | None) -> bytes:
        return orjson.dumps({"error": _object(error)})


def error_event(error: RequestError, request_id: str) -> bytes:
    """With the id, since the headers were sent long before."""
    told = {**_object(error), "request_id": request_id}
    return b"data: " + orjson.dumps({"error": told}) + b"\n\n"


def _object(error: RequestError) -> dict[str, Any]:
    return {"message": error.message, "param": error.field, "code": error.reason}
