"""With which conversations is a chat template tried when it is loaded?

Together they visit every branch that M2's format has: default and own system text, tools, kept
and dropped thinking, tool calls with several kinds of arguments, and tool results.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One conversation; a template may refuse those that are not `required`."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    required: bool = False


_USER = {"role": "user", "content": "one"}
_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "two",
        "parameters": {"type": "object", "properties": {"key": {"type": "string"}}},
    },
}
_CALL = {
    "type": "function",
    "function": {"name": "look_up", "arguments": {"key": "three", "depth": 4, "list": [5, None]}},
}
_CALLING = {
    "role": "assistant",
    "content": "six",
    "reasoning_content": "seven",
    "tool_calls": [_CALL, _CALL],
}
_RESULT = {"role": "tool", "content": "eight"}
_ANSWER = {"role": "assistant", "content": "nine", "reasoning_content": "ten"}

SAMPLES = (
    Sample(messages=[_USER], required=True),
    Sample(messages=[{"role": "system", "content": "eleven"}, _USER, _ANSWER, _USER]),
    Sample(messages=[_USER, _CALLING, _RESULT, _RESULT, _ANSWER], tools=[_TOOL, _TOOL]),
    Sample(messages=[_USER, {"role": "assistant", "content": "twelve"}, _USER], tools=[_TOOL]),
)
