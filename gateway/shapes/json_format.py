"""Which JSON must an answer be, by a `format` of OpenAI's kind? Text, any object, or a schema."""

import re
from typing import Any

from gateway.errors import bad_field
from gateway.generate.form import ANY_OBJECT
from gateway.http.schemas import check_schema
from gateway.limits import Limits
from moe_model.chat.answer_grammar import JsonAnswer

_FORMATS = "{'type': 'text'}, {'type': 'json_object'} or {'type': 'json_schema', ...}"
_SCHEMA_NAME = re.compile(r"[A-Za-z0-9_\-]{1,64}")


def json_answer(field: str, value: Any, limits: Limits, *, inside: str = "") -> JsonAnswer | None:
    """None for free text. Raises RequestError naming the field.

    `inside`: where the schema and what belongs to it are; "" for the format's own members.
    """
    if value is None:
        return None
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        if value.get("schema") is not None:
            raise bad_field(f"{field}.schema", "give a schema with type 'json_schema'")
        return JsonAnswer(schema=ANY_OBJECT, lenient=False)
    if kind != "json_schema":
        raise bad_field(field, f"must be {_FORMATS}")
    where, wrapper = field, value
    if inside:
        where, wrapper = f"{field}.{inside}", value.get(inside)
    if not isinstance(wrapper, dict):
        raise bad_field(where, "must be an object with a 'schema'")
    name, strict = wrapper.get("name"), wrapper.get("strict")
    if name is not None and not (isinstance(name, str) and _SCHEMA_NAME.fullmatch(name)):
        raise bad_field(f"{where}.name", "must be 1 to 64 of letters, digits, '_' and '-'")
    if strict is not None and not isinstance(strict, bool):
        raise bad_field(f"{where}.strict", "must be true or false", "invalid_type")
    schema = {} if wrapper.get("schema") is None else wrapper["schema"]
    if isinstance(schema, str):
        raise bad_field(f"{where}.schema", "must be a JSON Schema: an object", "invalid_type")
    check_schema(f"{where}.schema", schema, limits)
    return JsonAnswer(schema=schema, lenient=not strict)
