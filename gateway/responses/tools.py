"""Which tools does the model see, and by which names does the client know them?

A function is a tool as it is. A custom tool, whose input is free text, is a function with one
string. The tools of a namespace are called by both names, with a dot between; the call that comes
back names the two apart. What this server would have to run itself is left out with a warning,
because agents offer such tools always.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.errors import bad_field, unsupported
from gateway.limits import Limits

CUSTOM_INPUT = "input"
"""The parameter of a custom tool."""
_MOST_NAME_CHARS = 64
_CHOICES = (
    "'auto', 'none', 'required', {'type': 'function' or 'custom', 'name': ...} or "
    "{'type': 'allowed_tools', ...}"
)
_ALLOWED = "{'type': 'allowed_tools', 'mode': 'auto' or 'required', 'tools': [{...}, ...]}"
_SYNTAXES = {"regex": "regular expression", "lark": "Lark grammar"}
_FORMATS = "{'type': 'text'} or {'type': 'grammar', 'syntax': 'lark' or 'regex', 'definition': ...}"


@dataclass(frozen=True, kw_only=True)
class Offered:
    """One tool."""

    function: Mapping[str, Any]
    """As the chat template takes it."""
    place: str
    """In the request, for errors."""
    name: Any
    namespace: Any = None
    is_custom: bool = False
    pattern: str | None = None
    """A regular expression that a custom tool's input is to match."""
    has_grammar: bool = False
    """Whether there is a grammar of its input that is only shown to the model."""

    @property
    def flat(self) -> Any:
        """The model's name for it."""
        return self.function["name"]


@dataclass(frozen=True, kw_only=True)
class ToolChoice:
    """What `tool_choice` says; names are the model's."""

    may_call: bool = True
    must_call: bool = False
    only: tuple[str, ...] = ()
    """Those that may be called; empty: all."""
    hides_others: bool = False
    """Whether the model does not see them."""


@dataclass(frozen=True, kw_only=True)
class Tools:
    """All tools of a request."""

    offered: Sequence[Offered] = ()
    served: Sequence[Any] = ()
    """As the client sent them, without those that were left out."""
    warnings: Sequence[str] = ()

    def seen(self, choice: ToolChoice) -> list[Offered]:
        """Those that the model sees."""
        if not choice.hides_others:
            return list(self.offered)
        return [one for one in self.offered if one.flat in choice.only]

    @property
    def patterns(self) -> dict[str, str]:
        """By the model's names, what inputs are to match."""
        return {one.flat: one.pattern for one in self.offered if one.pattern is not None}

    def not_enforced(self, choice: ToolChoice) -> list[str]:
        """Warnings about what inputs are to match and may not."""
        shown = "the model is shown it, and its input may not match"
        warnings = []
        for one in self.seen(choice):
            if one.has_grammar:
                warnings.append(f"{one.place}.format: a Lark grammar is not enforced: {shown}")
            elif one.pattern is not None and not choice.must_call:
                warnings.append(
                    f"{one.place}.format: enforced where tool_choice demands a call, else {shown}"
                )
        return warnings


def read_tools(tools: Sequence[Any] | None) -> Tools:
    """Raises RequestError for what is no tool; what is inside is checked where it is encoded."""
    offered: list[Offered] = []
    served: list[Any] = []
    warnings: list[str] = []
    for index, tool in enumerate(tools or ()):
        found = _read(f"tools[{index}]", tool, None, warnings)
        if found:
            served.append(tool)
        offered += found
    return Tools(offered=offered, served=served, warnings=warnings)


def flat_name(name: Any, namespace: Any) -> Any:
    """The model's name for a tool of this namespace."""
    if not isinstance(name, str) or not isinstance(namespace, str) or not namespace:
        return name
    whole = f"{namespace}.{name}"
    if len(whole) <= _MOST_NAME_CHARS:
        return whole
    digest = hashlib.sha256(whole.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{whole[: _MOST_NAME_CHARS - 9]}.{digest}"


def tool_choice(value: Any, tools: Tools) -> ToolChoice:
    """Raises RequestError naming the field."""
    if value is None or value == "auto":
        return ToolChoice()
    if value == "none":
        return ToolChoice(may_call=False)
    if value == "required":
        if not tools.offered:
            raise bad_field("tool_choice", "'required' needs tools")
        return ToolChoice(must_call=True)
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "allowed_tools":
        return _allowed(value, tools)
    if kind in ("function", "custom"):
        return ToolChoice(must_call=True, only=(_named("tool_choice", value, tools),))
    if isinstance(kind, str):
        raise unsupported("tool_choice.type", f"{kind!r:.80} is not served here")
    raise bad_field("tool_choice", f"must be {_CHOICES}")


def _read(place: str, tool: Any, namespace: Any, warnings: list[str]) -> list[Offered]:
    if not isinstance(tool, dict):
        raise bad_field(place, "must be an object", "invalid_type")
    kind = tool.get("type")
    if kind == "function":
        return [_function(place, tool, namespace)]
    if kind == "custom":
        return [_custom(place, tool, namespace)]
    if kind == "namespace" and namespace is None:
        inner = tool.get("tools")
        if not isinstance(inner, list):
            raise bad_field(f"{place}.tools", "must be a list of tools", "invalid_type")
        if not isinstance(tool.get("name"), str) or not tool["name"]:
            raise bad_field(f"{place}.name", "must be a string that is not empty", "invalid_type")
        found = [
            _read(f"{place}.tools[{i}]", one, tool["name"], warnings) for i, one in enumerate(inner)
        ]
        return [one for several in found for one in several]
    if not isinstance(kind, str):
        raise bad_field(f"{place}.type", "must be a string", "invalid_type")
    warnings.append(f"{place}: {kind!r:.80} is not served here, the tool was left out")
    return []


def _function(place: str, tool: Mapping[str, Any], namespace: Any) -> Offered:
    given = {key: tool[key] for key in ("description", "strict", "parameters") if key in tool}
    function = {"name": flat_name(tool.get("name"), namespace), **given}
    return Offered(function=function, place=place, name=tool.get("name"), namespace=namespace)


def _custom(place: str, tool: Mapping[str, Any], namespace: Any) -> Offered:
    description = tool.get("description")
    syntax, definition = _grammar(f"{place}.format", tool.get("format"))
    wanted = f"The input must match this {_SYNTAXES[syntax]}:\n{definition}" if syntax else ""
    if wanted and isinstance(description, str | None):
        description = f"{description or ''}\n\n{wanted}".strip()
    text = {"type": "string", "description": "The whole input, as plain text."}
    function = {
        "name": flat_name(tool.get("name"), namespace),
        "description": description,
        "parameters": {
            "type": "object",
            "properties": {CUSTOM_INPUT: text},
            "required": [CUSTOM_INPUT],
            "additionalProperties": False,
        },
    }
    return Offered(
        function=function,
        place=place,
        name=tool.get("name"),
        namespace=namespace,
        is_custom=True,
        pattern=definition if syntax == "regex" else None,
        has_grammar=syntax == "lark",
    )


def _grammar(where: str, value: Any) -> tuple[str, str]:
    """(syntax, definition) of the input; empty for any text."""
    kind = "text" if value is None else value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return "", ""
    syntax, definition = (value.get("syntax"), value.get("definition")) if kind else (None, None)
    if kind != "grammar" or syntax not in _SYNTAXES:
        raise bad_field(where, f"must be {_FORMATS}")
    where = f"{where}.definition"
    if not isinstance(definition, str) or not definition:
        raise bad_field(where, "must be text that is not empty", "invalid_type")
    if syntax == "regex" and "\n" in definition:
        raise bad_field(where, r"must be one line; write a newline as \n")
    if syntax == "regex" and len(definition) > Limits.pattern_chars:
        raise bad_field(where, f"at most {Limits.pattern_chars} characters")
    return syntax, definition


def _allowed(value: Mapping[str, Any], tools: Tools) -> ToolChoice:
    """Entries for tools that were left out count for nothing."""
    named, mode = value.get("tools"), value.get("mode")
    if mode not in ("auto", "required") or not isinstance(named, list):
        raise bad_field("tool_choice", f"must be {_ALLOWED}")
    only = tuple(
        _named(f"tool_choice.tools[{i}]", one, tools)
        for i, one in enumerate(named)
        if not isinstance(one, dict) or one.get("type") in ("function", "custom", None)
    )
    if not only and mode == "required":
        raise bad_field("tool_choice.tools", "names none of the tools that are served here")
    return ToolChoice(
        may_call=bool(only), must_call=mode == "required", only=only, hides_others=True
    )


def _named(where: str, value: Any, tools: Tools) -> str:
    """The model's name for the tool that is named."""
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str):
        raise bad_field(f"{where}.name", "must be a tool's name", "invalid_type")
    namespace = value.get("namespace")
    for one in tools.offered:
        if name in (one.name, one.flat) and namespace in (None, one.namespace):
            return str(one.flat)
    raise bad_field(f"{where}.name", f"{name!r:.80} is none of the tools")
