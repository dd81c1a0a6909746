"""Which tools are on offer, and what must the answer be?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.anthropic.fields import MessagesRequest
from gateway.errors import bad_field, unsupported
from gateway.generate.form import AnswerForm
from gateway.http.schemas import check_schema
from gateway.limits import Limits
from moe_model.chat.answer_grammar import JsonAnswer

_CHOICES = "{'type': 'auto', 'any' or 'none'} or {'type': 'tool', 'name': ...}"
_FORMAT = "{'type': 'json_schema', 'schema': {...}}"
_SHARED = ("name", "description", "strict")


@dataclass(frozen=True, kw_only=True)
class ToolChoice:
    """What `tool_choice` says."""

    may_call: bool = True
    must_call: bool = False
    only_tool: str | None = None
    several_calls: bool = True


def function_tools(tools: Sequence[Any] | None) -> list[dict[str, Any]]:
    """The tools as the chat template takes them. Raises RequestError for one that is not custom.

    What is inside them is checked where they are encoded.
    """
    return [_function_tool(f"tools[{i}]", tool) for i, tool in enumerate(tools or ())]


def tool_choice(value: Any, tools: Sequence[Mapping[str, Any]]) -> ToolChoice:
    """`tools`: as `function_tools` gives them. Raises RequestError naming the field."""
    if value is None:
        return ToolChoice()
    kind = value.get("type") if isinstance(value, dict) else None
    if kind not in ("auto", "any", "none", "tool"):
        raise bad_field("tool_choice", f"must be {_CHOICES}")
    one_at_most = value.get("disable_parallel_tool_use")
    if one_at_most is not None and not isinstance(one_at_most, bool):
        raise bad_field(
            "tool_choice.disable_parallel_tool_use", "must be true or false", "invalid_type"
        )
    name = None
    if kind == "tool":
        name = value.get("name")
        if not any(tool["function"].get("name") == name for tool in tools) or name is None:
            raise bad_field("tool_choice.name", f"{name!r:.80} is none of the tools")
    if kind == "any" and not tools:
        raise bad_field("tool_choice", "'any' needs tools")
    return ToolChoice(
        may_call=kind != "none",
        must_call=kind in ("any", "tool"),
        only_tool=name,
        several_calls=not one_at_most,
    )


def answer_form(fields: MessagesRequest, choice: ToolChoice, limits: Limits) -> AnswerForm:
    """Raises RequestError naming the field."""
    in_config = fields.output_config.format if fields.output_config is not None else None
    where, given = "output_config.format", in_config
    if given is None:
        where, given = "output_format", fields.output_format
    json = _json_answer(where, given, limits)
    return AnswerForm(
        json=json,
        must_call=choice.must_call,
        only_tools=() if choice.only_tool is None else (choice.only_tool,),
        field="tools" if choice.must_call else f"{where}.schema",
    )


def _function_tool(where: str, tool: Any) -> dict[str, Any]:
    if not isinstance(tool, dict):
        raise bad_field(where, "must be an object", "invalid_type")
    if tool.get("type") not in (None, "custom"):
        raise unsupported(
            f"{where}.type",
            f"{tool['type']!r:.80} is not served here; only custom tools are, with a name and an "
            "input_schema",
        )
    function = {name: tool[name] for name in _SHARED if name in tool}
    if tool.get("input_schema") is None:
        raise bad_field(
            f"{where}.input_schema", "this field is required", "missing_required_parameter"
        )
    return {"type": "function", "function": {**function, "parameters": tool["input_schema"]}}


def _json_answer(where: str, value: Any, limits: Limits) -> JsonAnswer | None:
    if value is None:
        return None
    if not isinstance(value, dict) or value.get("type") != "json_schema":
        raise bad_field(where, f"must be {_FORMAT}")
    schema = value.get("schema")
    if not isinstance(schema, dict):
        raise bad_field(f"{where}.schema", "must be a JSON Schema: an object", "invalid_type")
    check_schema(f"{where}.schema", schema, limits)
    return JsonAnswer(schema=schema, lenient=True)
