"""What must the answer be, by `response_format`, `structured_outputs` and `tool_choice`?"""

from collections.abc import Sequence
from typing import Any

from gateway.errors import bad_field
from gateway.generate.form import ANY_OBJECT, AnswerForm
from gateway.limits import Limits
from gateway.openai.models import SamplingFields
from gateway.shapes.json_format import json_answer
from gateway.shapes.structured_outputs import FIELD as STRUCTURED
from gateway.shapes.structured_outputs import structured_form

_CHOICES = (
    "'auto', 'none', 'required', {'type': 'function', 'function': {'name': ...}} or "
    "{'type': 'allowed_tools', ...}"
)
_ALLOWED = "{'mode': 'auto' or 'required', 'tools': [{'type': 'function', 'function': {...}}, ...]}"
_FORMAT = "response_format"
_SCHEMA_FIELD = "response_format.json_schema.schema"


def answer_form(
    fields: SamplingFields,
    limits: Limits,
    *,
    tool_choice: Any = None,
    tools: Sequence[Any] | None = None,
) -> AnswerForm:
    """The form of the answers. Raises RequestError naming the field."""
    json = json_answer(_FORMAT, fields.response_format, limits, inside="json_schema")
    if tool_choice == "required" and not tools:
        raise bad_field("tool_choice", "'required' needs tools")
    named = [] if is_allowed_tools(tool_choice) else _named_tool(tool_choice, tools or [])
    only_tools = allowed_tools(tool_choice, tools or []) or named
    must_call = tool_choice == "required" or bool(named) or _mode(tool_choice) == "required"
    if fields.structured_outputs is not None:
        if json is not None or must_call:
            other = "tool_choice" if must_call else _FORMAT
            raise bad_field(STRUCTURED, f"cannot be combined with {other}")
        return structured_form(fields.structured_outputs, limits)
    schema_field = _SCHEMA_FIELD if json is not None and json.schema != ANY_OBJECT else _FORMAT
    return AnswerForm(
        json=json,
        must_call=must_call,
        only_tools=only_tools,
        field="tools" if must_call else schema_field,
    )


def is_allowed_tools(choice: Any) -> bool:
    """Whether `tool_choice` names several tools that may be called."""
    return isinstance(choice, dict) and choice.get("type") == "allowed_tools"


def allowed_tools(choice: Any, tools: Sequence[Any]) -> list[str]:
    """Their names; none for another kind of choice. Raises RequestError naming the field."""
    if not is_allowed_tools(choice):
        return []
    allowed = choice.get("allowed_tools")
    named = allowed.get("tools") if isinstance(allowed, dict) else None
    if _mode(choice) not in ("auto", "required") or not isinstance(named, list) or not named:
        raise bad_field("tool_choice.allowed_tools", f"must be {_ALLOWED}")
    return [name for one in named for name in _named_tool(one, tools)]


def tools_to_show(choice: Any, tools: Sequence[Any]) -> Sequence[Any]:
    """Those that `tool_choice` allows. All of them if one is malformed: it is refused by its index.

    Raises RequestError naming the field.
    """
    allowed = allowed_tools(choice, tools)
    functions = [tool.get("function") if isinstance(tool, dict) else None for tool in tools]
    if not allowed or not all(isinstance(function, dict) for function in functions):
        return tools
    return [tool for tool in tools if tool["function"].get("name") in allowed]


def _mode(choice: Any) -> Any:
    allowed = choice.get("allowed_tools") if is_allowed_tools(choice) else None
    return allowed.get("mode") if isinstance(allowed, dict) else None


def _named_tool(choice: Any, tools: Sequence[Any]) -> list[str]:
    """The tool's name when `tool_choice` names one."""
    if choice is None or choice in ("auto", "none", "required"):
        return []
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or choice.get("type") != "function":
        raise bad_field("tool_choice", f"must be {_CHOICES}")
    offered = [t.get("function") for t in tools if isinstance(t, dict)]
    if not any(isinstance(f, dict) and f.get("name") == name for f in offered):
        raise bad_field("tool_choice", f"names {name!r:.80}, which is none of the tools")
    return [name]
