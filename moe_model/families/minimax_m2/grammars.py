"""Which texts may an answer be? Grammars for JSON answers and forced tool calls, in llguidance's Lark.

They begin where thinking has ended. Tool calls are those of `parser.py`; of a tool's schema they keep
the declared parameters in the declared order, which of them are required, and the types. A string
stands there raw and may be any text: it ends where what may follow it in this call begins, as the
parser has it. Its choices (`enum`, `const`) are kept, its `pattern`, `format` and lengths are not.
Numbers have an end, since a model that goes on with digits never stops by itself.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moe_model.chat.tool_schema import (
    declared_properties,
    parameter_types,
    required_names,
    string_choices,
)
from moe_model.chat.tools import MAX_PARAMETER_NAME_CHARS
from moe_model.families.minimax_m2.call_schemas import ROOT, number_pattern, value_schema
from moe_model.text.added_tokens import TOOL_CALLS_END, TOOL_CALLS_START

_WHITESPACE = r"(?: |\n[ \t]{0,24})?"
"""Between the parts of a JSON value: a space or an indented line; models may go on with blanks forever."""
_HEADER = '%llguidance {"no_forcing": true}'
_PLACE = "// "
"""Begins the line before a rule that may be refused: whose fault that is."""
_END_OF_VALUE = "</parameter>\n"
_END_OF_INVOKE = "</invoke>\n"
_BLANKS = r"/\s*/"
_LINE = re.compile(r"line (\d+): (.*)", re.DOTALL)
_CLOSING_TAG = re.compile(r"<\s*/\s*(invoke|parameter|minimax:tool_call)")


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


def named_refusal(text: str, reason: str) -> str:
    """Why a grammar was refused ("line 6: reason"), in terms of what it was made from.

    Args:
        text: the grammar; one that `answer_grammar` did not make keeps its line numbers.
    """
    found = _LINE.match(reason)
    if not found or not text.startswith(f"{_HEADER}\nstart: "):
        return reason
    before = text.splitlines()[: int(found[1]) - 1][-1:]
    place = [line.removeprefix(_PLACE) for line in before if line.startswith(_PLACE)]
    return ": ".join([*place, found[2].replace(ROOT[1:], "")])  # a pointer as the tool has it


def _schema(schema: Any, *, lenient: bool) -> str:
    """Inline JSON, with our own options in place of any that the caller wrote."""
    known = schema if isinstance(schema, dict) else {} if schema is True else {"not": {}}
    options = {"whitespace_pattern": _WHITESPACE, "lenient": lenient}
    return json.dumps({**known, "x-guidance": options})


def _call_rules(calls: ToolCalls) -> list[str]:
    opening, closing = calls.marker_ids[TOOL_CALLS_START], calls.marker_ids[TOOL_CALLS_END]
    functions = [tool["function"] for tool in calls.tools]
    rules = _Rules()
    for i, function in enumerate(functions):
        _ToolRules(rules, f"t{i}", function).write()
    starts = [f"{_literal(_invoke(f))} t{i}" for i, f in enumerate(functions)]
    rules.add("invoke", *starts)
    # What may follow an invoke, and the same after the text of a string that ends one.
    end = f"<[{closing}]>"
    rules.add("next", end, *(["invoke"] if calls.several else []))
    others = [f"{rules.text_until('</invoke>', _invoke(f))} t{i}"
              for i, f in enumerate(functions)] if calls.several else []  # fmt: skip
    rules.add("last", f"LAST {end}", *others)
    last = _text_and("</invoke>", "")
    return [f'calls: <[{opening}]> "\\n" invoke', *rules.lines, f"LAST: {last}"]


class _Rules:
    """The rules so far. Each way on is a rule of its own, so their number is linear in the schema."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._until: dict[str, str] = {}

    def add(self, name: str, *alternatives: str) -> None:
        self.lines.append(f"{name}: {' | '.join(alternatives)}")

    def text_until(self, *tags: str) -> str:
        """The rule of a string that ends at the first such tags after its closing one."""
        return self.text_until_any(_text_and(*tags))

    def text_until_any(self, text: str) -> str:
        """The same for an expression of a terminal."""
        if text not in self._until:
            name = self._until[text] = f"until{len(self._until)}"
            # Lazy: the text goes no further than the first end, but whichever end is the first.
            self.lines.append(f"{name}[lazy]: {text}")
        return self._until[text]


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
        """The rule of what may stand from parameter `j` on."""
        return f"{self._name}f{j}"

    def _text(self, j: int) -> str:
        """The same with the text of a string before it."""
        return f"{self._name}s{j}"

    def _value(self, j: int) -> str:
        """The rule of parameter `j`'s value and all that follows."""
        return f"{self._name}v{j}"

    def _write_value(self, j: int, name: str) -> None:
        schema = self._properties[name]
        self._rules.lines.append(f"{_PLACE}tool {self._function['name']!r}, parameter {name!r}")
        then = f"{_literal(_END_OF_VALUE)} {self._from(j + 1)}"
        if "string" not in parameter_types(self._parameters, name):
            pattern = number_pattern(schema)
            own = value_schema(schema, self._parameters)
            value = pattern or f"%json {_schema(own, lenient=not self._is_strict)}"
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
        self._rules.add(self._name, f"{_literal(_END_OF_INVOKE)} next",
                        f"{opening} {name} {closing} {text}")  # fmt: skip
        self._rules.add(text, f"{more} {text}", "last")


def _invoke(function: Mapping[str, Any]) -> str:
    return f'<invoke name="{function["name"]}">\n'


def _parameter(name: str) -> str:
    return f'<parameter name="{name}">'


def _text_and(*tags: str) -> str:
    """Any text, its closing tag, and the tags, with blanks between them."""
    return " ".join(["/(?s:.*)/", *(f"{_literal(tag)} {_BLANKS}" for tag in ("</parameter>", *tags[:-1])),
                     *([_literal(tags[-1])] if tags[-1] else [])])  # fmt: skip


def _raw_choices(parameters: Mapping[str, Any], name: str) -> list[str]:
    """The literals that a string is restricted to, when it is and when they can stand there raw."""
    choices = string_choices(parameters, name)
    if any(_CLOSING_TAG.search(choice) for choice in choices):
        return []
    return [_literal(choice) if choice else "" for choice in choices]


def _literal(text: str) -> str:
    return json.dumps(text)
