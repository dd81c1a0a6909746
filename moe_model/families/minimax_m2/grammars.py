"""Which texts are calls of tools? Grammar rules for calls that a request demands.

The calls are those that `parser.py` reads. Of a tool's schema the rules keep the declared
parameters in the declared order, which of them are required, and the types. A string is written
raw and may be any text: it ends where something begins that may follow it in this call, as for the
parser. Its choices (`enum`, `const`) are kept, its `pattern`, `format` and lengths are not; a tool
whose only parameter matches a pattern of its own is told apart (`ToolCalls.patterns`).
Numbers are bounded: a model that goes on with digits never stops by itself.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from moe_model.chat.answer_grammar import (
    PLACE,
    Alternative,
    ToolCalls,
    inline_schema,
    pattern_literal,
)
from moe_model.chat.tool_schema import (
    declared_properties,
    parameter_types,
    required_names,
    string_choices,
)
from moe_model.chat.tools import MAX_PARAMETER_NAME_CHARS
from moe_model.families.minimax_m2.call_schemas import number_pattern, value_schema
from moe_model.families.minimax_m2.markers import TOOL_CALLS_END, TOOL_CALLS_START

_END_OF_VALUE = "</parameter>\n"
_END_OF_INVOKE = "</invoke>\n"
_BLANKS = r"/\s*/"
_CLOSING_TAG = re.compile(r"<\s*/\s*(invoke|parameter|minimax:tool_call)")


def call_rules(calls: ToolCalls) -> Alternative:
    """One wrapper with calls. The template puts up to three newlines between thinking and it."""
    opening, closing = calls.marker_ids[TOOL_CALLS_START], calls.marker_ids[TOOL_CALLS_END]
    functions = [tool["function"] for tool in calls.tools]
    rules = _Rules()
    for i, function in enumerate(functions):
        if pattern := calls.patterns.get(function["name"]):
            _write_matching(rules, f"t{i}", function, pattern)
        else:
            _ToolRules(rules, f"t{i}", function).write()
    starts = [f"{_literal(_invoke(f))} t{i}" for i, f in enumerate(functions)]
    rules.add("invoke", *starts)
    # What may follow an invoke, and the same after the text of a string that ends one.
    end = f"<[{closing}]>"
    rules.add("next", end, *(["invoke"] if calls.several else []))
    others = [
        f"{rules.text_until('</invoke>', _invoke(f))} t{i}"
        for i, f in enumerate(functions if calls.several else [])
    ]
    rules.add("last", f"LAST {end}", *others)
    last = _text_and("</invoke>", "")
    lines = [f'calls: <[{opening}]> "\\n" invoke', *rules.lines, f"LAST: {last}"]
    return Alternative(start=r"/\n{1,3}/? calls", rules=lines)


class _Rules:
    """The rules so far. Each continuation is one rule, so they grow linearly with a schema."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._until: dict[str, str] = {}

    def add(self, name: str, *alternatives: str) -> None:
        self.lines.append(f"{name}: {' | '.join(alternatives)}")

    def text_until(self, *tags: str) -> str:
        """The rule of a string that ends at the first such tags after its closing one."""
        return self.text_until_any(_text_and(*tags))

    def text_until_any(self, text: str) -> str:
        """The same for the expression of a terminal."""
        if text not in self._until:
            name = self._until[text] = f"until{len(self._until)}"
            # Lazy: the text goes no further than the first end, but whichever end is the first.
            self.lines.append(f"{name}[lazy]: {text}")
        return self._until[text]


def _write_matching(rules: _Rules, name: str, function: Mapping[str, Any], pattern: str) -> None:
    """The rules of a tool with one parameter that matches a pattern: it ends at the first end."""
    (parameter,) = declared_properties(function["parameters"])
    ends = f"{_literal(_END_OF_VALUE)} {_literal(_END_OF_INVOKE)}"
    place = f"{PLACE}tool {function['name']!r}, parameter {parameter!r}"
    rules.lines.append(place)
    rules.lines.append(f"{name}m[lazy]: {pattern_literal(pattern)} {ends}")
    rules.add(name, f"{_literal(_parameter(parameter))} {name}m next")


class _ToolRules:
    """The rules of one tool: after its opening tag (`name`), and from each parameter on."""

    def __init__(self, rules: _Rules, name: str, function: Mapping[str, Any]):
        self._rules = rules
        self._name = name
        self._function = function
        parameters = function.get("parameters") or {}
        self._parameters = parameters
        self._properties = declared_properties(parameters)
        self._required = required_names(parameters)
        self._is_strict = bool(function.get("strict"))

    def write(self) -> None:
        if not self._properties and self._parameters.get("additionalProperties") is not False:
            self._write_undeclared()
            return
        end = f"{_literal(_END_OF_INVOKE)} next"
        names = list(self._properties)
        self._rules.add(self._name, self._from(0))
        for j, name in enumerate(names):
            self._write_value(j, name)
            skip = [] if name in self._required else [self._from(j + 1)]
            self._rules.add(self._from(j), f"{_literal(_parameter(name))} {self._value(j)}", *skip)
            until = self._rules.text_until(_parameter(name))
            skip = [] if name in self._required else [self._text(j + 1)]
            self._rules.add(self._text(j), f"{until} {self._value(j)}", *skip)
        self._rules.add(self._from(len(names)), end)
        self._rules.add(self._text(len(names)), "last")

    def _from(self, j: int) -> str:
        """The rule of what may follow from parameter `j` on."""
        return f"{self._name}f{j}"

    def _text(self, j: int) -> str:
        """The same with the text of a string before it."""
        return f"{self._name}s{j}"

    def _value(self, j: int) -> str:
        """The rule of parameter `j`'s value and all that follows."""
        return f"{self._name}v{j}"

    def _write_value(self, j: int, name: str) -> None:
        schema = self._properties[name]
        self._rules.lines.append(f"{PLACE}tool {self._function['name']!r}, parameter {name!r}")
        then = f"{_literal(_END_OF_VALUE)} {self._from(j + 1)}"
        if "string" not in parameter_types(self._parameters, name):
            pattern = number_pattern(schema)
            own = value_schema(schema, self._parameters)
            value = pattern or f"%json {inline_schema(own, lenient=not self._is_strict)}"
            self._rules.add(self._value(j), f"{value} {then}")
        elif choices := _raw_choices(self._parameters, name):
            self._rules.add(self._value(j), *(f"{choice} {then}" for choice in choices))
        else:
            self._rules.add(self._value(j), self._text(j + 1))

    def _write_undeclared(self) -> None:
        """A tool that declares no parameters takes strings of any name."""
        name = r'/[^"<>\x00-\x1f\x7f]{1,%d}/' % MAX_PARAMETER_NAME_CHARS  # noqa: UP031
        opening, closing = _literal('<parameter name="'), _literal('">')
        more = self._rules.text_until_any(
            f"{_text_and('<parameter name=')} {_literal(chr(34))} {name} {closing}"
        )
        text = f"{self._name}s"
        first = f"{opening} {name} {closing} {text}"
        self._rules.add(self._name, f"{_literal(_END_OF_INVOKE)} next", first)
        self._rules.add(text, f"{more} {text}", "last")


def _invoke(function: Mapping[str, Any]) -> str:
    return f'<invoke name="{function["name"]}">\n'


def _parameter(name: str) -> str:
    return f'<parameter name="{name}">'


def _text_and(*tags: str) -> str:
    """Any text, its closing tag, and the tags, with blanks between them."""
    followed = [f"{_literal(tag)} {_BLANKS}" for tag in ("</parameter>", *tags[:-1])]
    return " ".join(["/(?s:.*)/", *followed, *([_literal(tags[-1])] if tags[-1] else [])])


def _raw_choices(parameters: Mapping[str, Any], name: str) -> list[str]:
    """The literals that a string is restricted to; empty if it is not or they cannot be raw."""
    choices = string_choices(parameters, name)
    if any(_CLOSING_TAG.search(choice) for choice in choices):
        return []
    return [_literal(choice) if choice else "" for choice in choices]


def _literal(text: str) -> str:
    return json.dumps(text)
