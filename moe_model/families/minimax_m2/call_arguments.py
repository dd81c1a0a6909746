"""How do the raw parameter values of one tool call become fragments of one JSON object?"""

import json
from collections.abc import Iterable
from enum import Enum, auto
from typing import Any

from moe_model.chat.schema_types import (
    json_object,
    json_string,
    to_json_text,
)
from moe_model.chat.tool_schema import (
    declared_properties,
    parameter_types,
    required_names,
    takes_others,
)

MAX_TYPED_VALUE_CHARS = 2**20

_STRING_OR_NULL = frozenset({"string", "null"})


class _Mode(Enum):
    DROP = auto()  # a parameter given a second time
    STREAM = auto()  # a string whose opening quote is out
    BUFFER = auto()  # a value whose type is known only at its end


class CallArguments:
    """Writes one call's arguments; the fragments of all calls here concatenate to JSON.

    A string is written as it comes. A value of another type is kept until it is complete; one
    longer than `MAX_TYPED_VALUE_CHARS` becomes a string. Of a parameter given twice the first
    counts, because its text is already out. Arguments that end with `leave_open` are not valid
    JSON, so that no client takes a part for the whole.
    """

    def __init__(self, parameters: Any) -> None:
        """`parameters` is the tool's schema, a caller's: it is read defensively."""
        self._parameters = parameters
        self._declared = frozenset(declared_properties(parameters))
        self._required = required_names(parameters)
        self._given: set[str] = set()
        self._mode = _Mode.DROP
        self._types: frozenset[str] = frozenset()
        self._pieces: list[str] = []
        self._num_chars = 0

    def name_of(self, written: str) -> str:
        """The parameter that a tag's name means: blanks around it count only if declared so."""
        stripped = written.strip()
        is_other = written not in self._declared and stripped in self._declared
        return stripped if is_other else written

    def expects(self, name: str) -> bool:
        """Whether a parameter of this name may still come: declared, if any are, and not given."""
        return name not in self._given and (not self._declared or name in self._declared)

    def may_be_misnamed(self, written: Iterable[str]) -> bool:
        """Whether undeclared parameters at the end of a call are parameters, not a quotation.

        They are where the schema takes others, where something that is required is given under none
        of the names, and where the value that is open fits its type and cannot be a string.
        """
        names = {self.name_of(name) for name in written}
        if takes_others(self._parameters) or not self._required <= self._given | names:
            return True
        if self._mode is not _Mode.BUFFER or "string" in self._types:
            return False
        return not to_json_text("".join(self._pieces), self._types).startswith('"')

    def has(self, name: str) -> bool:
        """Whether a parameter of this name was given."""
        return name in self._given

    def awaits(self, name: str) -> bool:
        """Whether a declared parameter of this name is still missing."""
        return name in self._declared and name not in self._given

    def lacks(self, name: str, value: str) -> bool:
        """Whether a missing parameter is required, or not a string and `value` fits its type."""
        types = parameter_types(self._parameters, name)
        is_typed = "string" not in types and not to_json_text(value, types).startswith('"')
        return name in self._required or is_typed

    @property
    def is_empty(self) -> bool:
        """No parameter was given yet."""
        return not self._given

    @property
    def is_whole(self) -> bool:
        """Every parameter that the tool requires was given."""
        return self._required <= self._given

    def open(self, name: str) -> str:
        """Begin a parameter's value."""
        self._pieces, self._num_chars = [], 0
        if name in self._given:
            self._mode = _Mode.DROP
            return ""
        self._types = parameter_types(self._parameters, name)
        key = ("{" if not self._given else ", ") + json_string(name) + ": "
        self._given.add(name)
        if self._types <= {"string"}:
            self._mode = _Mode.STREAM
            return key + '"'
        self._mode = _Mode.BUFFER
        return key

    def write(self, text: str) -> str:
        """More of the value."""
        if self._mode is _Mode.STREAM:
            return _escaped(text)
        if self._mode is _Mode.DROP:
            return ""
        self._pieces.append(text)
        self._num_chars += len(text)
        if self._num_chars <= MAX_TYPED_VALUE_CHARS and not self._is_surely_string():
            return ""
        self._mode = _Mode.STREAM
        return '"' + _escaped("".join(self._pieces))

    def close(self) -> str:
        """End of the value."""
        mode, self._mode = self._mode, _Mode.DROP
        if mode is _Mode.STREAM:
            return '"'
        if mode is _Mode.BUFFER:
            return to_json_text("".join(self._pieces), self._types)
        return ""

    def finish(self) -> str:
        """End of the arguments."""
        return "}" if self._given else "{}"

    def leave_open(self) -> str:
        """End of arguments that were cut off: what there is, never whole JSON."""
        return "" if self._given else "{"

    def finish_with(self, text: str, *, is_complete: bool, is_cut: bool) -> tuple[str, bool] | None:
        """End of a call that gave `text` in place of parameters, and whether it is whole.

        None when there are parameters or the text does not start a JSON object. An object that is
        broken or cut off stays as it is, not valid JSON.
        """
        if self._given or not text.startswith("{"):
            return None
        whole = json_object(text)
        if whole is None:
            return text, False
        has_all = not is_cut and self._required <= json.loads(whole).keys()
        return (whole, True) if is_complete or has_all else (whole[:-1], False)

    def _is_surely_string(self) -> bool:
        """Whether a value that may be a string or null can no longer become "null"."""
        if not self._types <= _STRING_OR_NULL:
            return False
        return self._num_chars > len("null") or not "null".startswith("".join(self._pieces).lower())


def _escaped(text: str) -> str:
    """The text as written between the quotes of a JSON string; may be called piece by piece."""
    return json_string(text)[1:-1]
