"""Is this a JSON Schema, and small enough? The same answer for every field that takes one."""

from typing import Any

import orjson

from gateway.errors import bad_field
from gateway.http.strict_json import parse_text
from gateway.limits import Limits
from moe_model.chat.lossless_json import is_deeper


def check_schema(field: str, value: Any, limits: Limits) -> Any:
    """The schema; `value` may also be its JSON text. Raises RequestError naming the field."""
    if isinstance(value, str):
        if len(value) > limits.schema_bytes:
            raise bad_field(field, f"at most {limits.schema_bytes} bytes, has {len(value)}")
        value = parse_text(field, value, limits)
    if not isinstance(value, dict | bool):
        raise bad_field(field, "must be a JSON Schema: an object", "invalid_type")
    try:
        size = len(orjson.dumps(value))
    except TypeError as error:  # from a caller in this process: no JSON, or nested too deep
        raise bad_field(field, f"cannot be written as JSON ({error})") from None
    if size > limits.schema_bytes:
        raise bad_field(field, f"at most {limits.schema_bytes} bytes, has {size}")
    if is_deeper(value, limits.schema_depth + 1):
        raise bad_field(field, f"nested deeper than {limits.schema_depth} levels")
    return value
