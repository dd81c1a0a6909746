"""Which texts may an answer be? Grammars for JSON answers and forced tool calls, in llguidance's Lark.

They begin where thinking has ended. Tool calls are those of `parser.py`; of a tool's schema they keep
the declared parameters in the declared order, which of them are required, and the types. A string
stands there raw: its choices (`enum`, `const`) are kept, its `pattern`, `format` and lengths are not (a
counter beside the exclusion of tags needs too many lexer states), and it may not contain the format's own tags.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minimax_m2.chat.added_tokens import TOOL_CALLS_END, TOOL_CALLS_START
from minimax_m2.chat.schema_types import parameter_types
from minimax_m2.chat.tools import MAX_PARAMETER_NAME_CHARS

_WHITESPACE = r"(?: |\n[ \t]{0,24})?"
"""Between the parts of a JSON value: a space or an indented line; models may go on with blanks forever."""
_HEADER = '%llguidance {"no_forcing": true}'
_RAW = (
    # Whatever the parser might take for a tag; it allows blanks in them.
    r"TAG: /(?s:.*)<\s*(\/\s*)?(invoke|parameter|minimax:tool_call)(?s:.*)/",
    r"TEXT: /(?s:.*)/ & ~TAG",
    'raw[lazy]: TEXT "</parameter>"',
    r'NAME: /[^"<>\x00-\x1f\x7f]{1,%d}/' % MAX_PARAMETER_NAME_CHARS,  # noqa: UP031
    r'other: "<parameter name=\"" NAME "\">" raw "\n"',
)


@dataclass(frozen=True, kw_only=True)
class JsonAnswer:
    """One JSON value that the schema accepts."""

    schema: Any
    lenient: bool
    """Ignore keywords that cannot be enforced, instead of refusing the schema."""


@dataclass(frozen=True, kw_only=True)
class ToolCalls:
    """One wrapper with calls of these tools."""

    tools: Sequence[Mapping[str, Any]]
    """As `validate_tools` accepts them; at least one."""
    several: bool
    marker_ids: Mapping[str, int] = field(repr=False)


def answer_grammar(*forms: JsonAnswer | ToolCalls) -> str:
    """A grammar of answers in any one of these forms."""
    starts, rules = [], []
    for form in forms:
        # As many newlines as the template puts there after thinking; the parser drops them.
        if isinstance(form, JsonAnswer):
            starts.append(r"/\n{1,2}/? json")
            rules.append(f"json: %json {_schema(form.schema, lenient=form.lenient)}")
        else:
            starts.append(r"/\n{1,3}/? calls")
            rules += _call_rules(form)
    return "\n".join([_HEADER, f"start: {' | '.join(starts)}", *rules]) + "\n"


def _schema(schema: Any, *, lenient: bool) -> str:
    """Inline JSON, with our own options in place of any that the caller wrote."""
    known = schema if isinstance(schema, dict) else {} if schema is True else {"not": {}}
    options = {"whitespace_pattern": _WHITESPACE, "lenient": lenient}
    return json.dumps({**known, "x-guidance": options})


def _call_rules(calls: ToolCalls) -> list[str]:
    opening, closing = calls.marker_ids[TOOL_CALLS_START], calls.marker_ids[TOOL_CALLS_END]
    invokes = " | ".join(f"tool{i}" for i in range(len(calls.tools)))
    rules = [
        f'calls: <[{opening}]> "\\n" invoke{"+" if calls.several else ""} <[{closing}]>',
        f"invoke: {invokes}",
        *_RAW,
    ]
    for i, tool in enumerate(calls.tools):
        rules += _tool_rules(f"tool{i}", tool["function"])
    return rules


def _tool_rules(rule: str, function: Mapping[str, Any]) -> list[str]:
    parameters = function.get("parameters") or {}
    properties = parameters.get("properties") or {}
    listed = parameters.get("required")
    # A name that is required but not declared has passed no check and no type: it is left out.
    required = listed if isinstance(listed, list) else []
    parts, rules = [], []
    for j, name in enumerate(properties):
        parts.append(f"{rule}p{j}" + ("" if name in required else "?"))
        opening = _literal(f'<parameter name="{name}">')
        value = _value(parameters, name, properties.get(name), strict=bool(function.get("strict")))
        rules.append(f"{rule}p{j}: {opening} {value}")
    if not properties and parameters.get("additionalProperties") is not False:
        parts.append("other*")
    name = function["name"]
    opening, closing = _literal(f'<invoke name="{name}">\n'), _literal("</invoke>\n")
    return [f"{rule}: {opening} {' '.join(parts)} {closing}", *rules]


def _value(parameters: Mapping[str, Any], name: str, schema: Any, *, strict: bool) -> str:
    """The rest of a parameter, from its value on."""
    closing = _literal("</parameter>\n")
    if "string" not in parameter_types(dict(parameters), name):
        shared = {key: parameters[key] for key in ("$defs", "definitions") if key in parameters}
        own = schema if isinstance(schema, dict) else {}
        return f"%json {_schema({**shared, **own}, lenient=not strict)} {closing}"
    choices = _choices(schema)
    if choices:
        return f"({' | '.join(_literal(choice) for choice in choices)}) {closing}"
    return r'raw "\n"'


def _choices(schema: Any) -> list[str]:
    """The texts that a string is restricted to, when it is and when they can stand there raw."""
    if not isinstance(schema, dict):
        return []
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(choices, list) or not all(isinstance(c, str) and c for c in choices):
        return []
    return [] if any("<" in choice for choice in choices) else choices


def _literal(text: str) -> str:
    return json.dumps(text)
