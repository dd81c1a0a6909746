"""How does SGLang's native API report errors? As an `error` object without a type."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from gateway.errors import RequestError
from gateway.shapes.error_objects import ErrorObject, ErrorObjects


class SGLangError(BaseModel):
    """The body of an error."""

    model_config = ConfigDict(extra="forbid")

    error: ErrorObject


def _told(error: RequestError) -> dict[str, Any]:
    return {"message": error.message, "param": error.field, "code": error.reason}


SGLANG_ERRORS = ErrorObjects(_told)
