"""Which texts may an answer be? Grammars in llguidance's Lark, of JSON answers and of tool calls.

They begin where thinking has ended. How tool calls are written differs by family, so a family
gives their rules (moe_model/families/family.py).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PLACE = "// "
"""Begins the line before a rule that may be refused: what of the request the rule was made from."""
TOOL_ROOT = "#/$defs/expertmesh_tool"
"""Where a tool's schema is found by references in the schema of one of its parameters."""
_WHITESPACE = r"(?: |\n[ \t]{0,24})?"
"""Between the parts of a JSON value: a space or an indented line. Without a limit, models may go
on with blanks for ever."""
_HEADER = '%llguidance {"no_forcing": true}'
_LINE = re.compile(r"line (\d+): (.*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """One form of an answer: what `start` may be, and the rules that it needs."""

    start: str
    rules: list[str]


@dataclass(frozen=True, kw_only=True)
class ToolCalls:
    """An answer that is calls of these tools."""

    tools: Sequence[Mapping[str, Any]]
    """As `validate_tools` accepts them; at least one."""
    several: bool
    marker_ids: Mapping[str, int] = field(repr=False)
    """Of the tokenizer's added tokens, by their text."""
    patterns: Mapping[str, str] = field(default_factory=dict)
    """By a tool's name: the regular expression that its only parameter, a string, matches whole."""


@dataclass(frozen=True, kw_only=True)
class JsonAnswer:
    """One JSON value that the schema accepts."""

    schema: Any
    lenient: bool
    """Ignore keywords that cannot be enforced, instead of refusing the schema."""

    def rules(self) -> Alternative:
        """After thinking, templates put up to two newlines, which parsers drop."""
        rule = f"json: %json {inline_schema(self.schema, lenient=self.lenient)}"
        return Alternative(start=r"/\n{1,2}/? json", rules=[rule])


def answer_grammar(*alternatives: Alternative) -> str:
    """A grammar of answers in any one of these forms."""
    start = " | ".join(one.start for one in alternatives)
    rules = [rule for one in alternatives for rule in one.rules]
    return "\n".join([_HEADER, f"start: {start}", *rules]) + "\n"


def inline_schema(schema: Any, *, lenient: bool) -> str:
    """For a `%json` rule, with our own options in place of any that the caller wrote."""
    known = schema if isinstance(schema, dict) else {} if schema is True else {"not": {}}
    options = {"whitespace_pattern": _WHITESPACE, "lenient": lenient}
    return json.dumps({**known, "x-guidance": options})


def pattern_literal(pattern: str) -> str:
    """A regular expression of one line as Lark writes it; slashes in it are escaped once."""
    return "/" + re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\\/", pattern) + "/"


def named_refusal(text: str, reason: str) -> str:
    """Why a grammar was refused ("line 6: reason"), in terms of what it was made from.

    Args:
        text: the grammar; one that `answer_grammar` did not make keeps its line numbers.
    """
    found = _LINE.match(reason)
    if not found or not text.startswith(f"{_HEADER}\nstart: "):
        return reason
    before = text.splitlines()[: int(found[1]) - 1][-1:]
    place = [line.removeprefix(PLACE) for line in before if line.startswith(PLACE)]
    return ": ".join([*place, found[2].replace(TOOL_ROOT[1:], "")])  # a pointer as the tool has it
