"""Which tools are on offer, and is this call one of theirs?"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from expertmesh.agent.tools.schema import problems
from expertmesh.agent.tools.tool import Tool

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MAX_PROBLEMS = 5


class BadCallError(Exception):
    """A call that cannot be made; the message is for the model."""


@dataclass(frozen=True)
class CheckedCall:
    """A tool and arguments that fit its schema."""

    tool: Tool
    arguments: dict[str, Any]


class Registry:
    """The tools of one run, in the order in which the model sees them."""

    def __init__(self, tools: Iterable[Tool] = ()):
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            self.add(tool)

    def add(self, tool: Tool) -> None:
        """Raises ValueError for a name that is taken, or that servers refuse."""
        if not _NAME.fullmatch(tool.name):
            raise ValueError(f"tool name {tool.name!r}: 1 to 64 letters, digits, _ and - only")
        if tool.name in self._tools:
            raise ValueError(f"tool name {tool.name!r}: there are two tools of this name")
        self._tools[tool.name] = tool

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    @property
    def names(self) -> list[str]:
        return list(self._tools)

    def definitions(self) -> list[dict[str, Any]]:
        """The `tools` of a chat request."""
        return [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                },
            }
            for tool in self
        ]

    def check(self, name: str, arguments: str) -> CheckedCall:
        """The tool and its arguments, parsed. Raises BadCallError."""
        tool = self._tools.get(name)
        if tool is None:
            near = difflib.get_close_matches(name, self._tools, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise BadCallError(
                f"there is no tool {name[:64]!r}; {hint}the tools are {', '.join(self._tools)}"
            )
        parsed = _parsed(arguments)
        faults = problems(parsed, tool.parameters)
        if faults:
            more = f"; and {len(faults) - _MAX_PROBLEMS} more" * (len(faults) > _MAX_PROBLEMS)
            raise BadCallError(f"{name}: " + "; ".join(faults[:_MAX_PROBLEMS]) + more)
        assert isinstance(parsed, dict)
        return CheckedCall(tool, parsed)


def _parsed(arguments: str) -> dict[str, Any]:
    try:
        parsed = json.loads(arguments or "{}", parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadCallError(f"the arguments are not JSON: {reason}") from None
    if not isinstance(parsed, dict):
        raise BadCallError("the arguments must be a JSON object")
    return parsed


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")
