"""How does a body become typed fields? A wrong one is named, an unknown one is logged once."""

import logging
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.errors import RequestError, bad_field

log = logging.getLogger(__name__)

_MAX_LOGGED_NAMES = 256

Model = TypeVar("Model", bound=BaseModel)


def parse_model(model_type: type[Model], body: dict[str, Any]) -> Model:
    """The typed request. Raises RequestError naming the first wrong field."""
    try:
        return model_type.model_validate(body)
    except ValidationError as error:
        raise _field_error(error) from None


def note_ignored(names: Iterable[str], logged: set[str]) -> None:
    """Log each name of a field that nothing reads, once; `logged` are those that were."""
    for name in names:
        if name not in logged and len(logged) < _MAX_LOGGED_NAMES:
            logged.add(name)
            log.info("request field %.80r is not known and ignored (logged once)", name)


def _field_error(error: ValidationError) -> RequestError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ""
    for part in first["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    path = path[:200]
    if first["type"] == "missing":
        return bad_field(path, "this field is required", "missing_required_parameter")
    return bad_field(path, first["msg"], "invalid_type")
