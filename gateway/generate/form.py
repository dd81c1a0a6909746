"""What must an answer be? Free text, JSON, a call of a tool, or what a grammar says."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moe_model.chat.answer_grammar import Alternative, JsonAnswer, ToolCalls, answer_grammar

ANY_OBJECT: dict[str, Any] = {"type": "object"}


@dataclass(frozen=True, kw_only=True)
class AnswerForm:
    """What a request demands of its answers; by default nothing."""

    json: JsonAnswer | None = None
    must_call: bool = False
    only_tools: Collection[str] = ()
    """Those that may be called; empty: all."""
    patterns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """As in `ToolCalls`."""
    given: Mapping[bool, str | None] | None = None
    """A grammar of the client's own, by whether the output begins with thinking."""
    field: str = ""
    """The client's name for it, for the error when the grammar is refused."""

    @property
    def is_constrained(self) -> bool:
        """Whether it demands anything."""
        return self.json is not None or self.must_call or self.given is not None

    def grammar(
        self,
        tools: Sequence[Mapping[str, Any]],
        *,
        thinks: bool,
        several_calls: bool,
        marker_ids: Mapping[str, int],
        call_rules: Callable[[ToolCalls], Alternative],
    ) -> str | None:
        """The grammar of what follows thinking, or None for free text.

        Args:
            tools: those on offer, validated; JSON answers may be calls of them instead.
            call_rules: the family's, for calls.
        """
        if self.given:
            return self.given[thinks]
        forms: list[Alternative] = []
        if self.json is not None and not self.must_call:
            forms.append(self.json.rules())
        if self.must_call or (forms and tools):
            only = self.only_tools
            offered = [t for t in tools if not only or t["function"]["name"] in only]
            several = several_calls and len(only) != 1
            calls = ToolCalls(
                tools=offered, several=several, marker_ids=marker_ids, patterns=self.patterns
            )
            forms.append(call_rules(calls))
        return answer_grammar(*forms) if forms else None
