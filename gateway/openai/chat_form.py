"""What must the answer be, by `response_format` and `tool_choice`?"""

import re
from collections.abc import Sequence
from typing import Any

from gateway.errors import bad_field
from gateway.generate.form import ANY_OBJECT, AnswerForm
from gateway.http.schemas import check_schema
from gateway.limits import Limits
from moe_model.chat.answer_grammar import JsonAnswer

_FORMATS = "{'type': 'text'}, {'type': 'json_object'} or {'type': 'json_schema', ...}"
_CHOICES = "'auto', 'none', 'required' or {'type': 'function', 'function': {'name': ...}}"
_SCHEMA_FIELD = "response_format.json_schema.schema"
_SCHEMA_NAME = re.compile(r"[A-Za-z0-9_\-]{1,64}")


def chat_form(
    response_format: Any, tool_choice: Any, tools: Sequence[Any] | None, limits: Limits
) -> AnswerForm:
    """The form of the answers. Raises RequestError naming the field."""
    json = _json_answer(response_format, limits)
    only_tool = _named_tool(tool_choice, tools or [])
    must_call = tool_choice == "required" or only_tool is not None
    if tool_choice == "required" and not tools:
        raise bad_field("tool_choice", "'required' needs tools")
    schema_field = (
        _SCHEMA_FIELD if json is not None and json.schema != ANY_OBJECT else "response_format"
    )
    return AnswerForm(
        json=json,
        must_call=must_call,
        only_tool=only_tool,
        field="tools" if must_call else schema_field,
    )


def _json_answer(value: Any, limits: Limits) -> JsonAnswer | None:
    if value is None:
        return None
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        if value.get("schema") is not None:
            raise bad_field("response_format.schema", "give a schema with type 'json_schema'")
        return JsonAnswer(schema=ANY_OBJECT, lenient=False)
    if kind != "json_schema":
        raise bad_field("response_format", f"must be {_FORMATS}")
    wrapper = value.get("json_schema")
    if not isinstance(wrapper, dict):
        raise bad_field("response_format.json_schema", "must be an object with a 'schema'")
    name, strict = wrapper.get("name"), wrapper.get("strict")
    if name is not None and not (isinstance(name, str) and _SCHEMA_NAME.fullmatch(name)):
        raise bad_field(
            "response_format.json_schema.name", "must be 1 to 64 of letters, digits, '_' and '-'"
        )
    if strict is not None and not isinstance(strict, bool):
        raise bad_field(
            "response_format.json_schema.strict", "must be true or false", "invalid_type"
        )
    schema = {} if wrapper.get("schema") is None else wrapper["schema"]
    if isinstance(schema, str):
        raise bad_field(_SCHEMA_FIELD, "must be a JSON Schema: an object", "invalid_type")
    check_schema(_SCHEMA_FIELD, schema, limits)
    return JsonAnswer(schema=schema, lenient=not strict)


def _named_tool(choice: Any, tools: Sequence[Any]) -> str | None:
    """The tool's name when `tool_choice` names one."""
    if choice is None or choice in ("auto", "none", "required"):
        return None
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or choice.get("type") != "function":
        raise bad_field("tool_choice", f"must be {_CHOICES}")
    offered = [t.get("function") for t in tools if isinstance(t, dict)]
    if not any(isinstance(f, dict) and f.get("name") == name for f in offered):
        raise bad_field("tool_choice", f"names {name!r:.80}, which is none of the tools")
    return name
