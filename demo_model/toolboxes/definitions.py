"""How is a tool described, and which arguments does a role of it take?

A role is what a task needs (`run`, `view`, `edit`, ...). Several roles can be one tool: the
agent's `file_editor` views, edits and writes, told apart by `action`.
"""

import json
import random
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
OF_TOOL = re.compile(r"\[(\w+)\]")
"""Before a line that is about one tool."""
ROLES = ("run", "python", "view", "edit", "write", "search", "find", "open")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One tool for one role, under a name and parameter names that someone else chose."""

    role: str
    tool: str
    names: dict[str, str]
    """Our name of an argument -> theirs"""
    optional: tuple[str, ...]
    descriptions: tuple[str, ...]
    fixed: dict[str, str]

    def define(self, rng: random.Random) -> dict[str, Any]:
        """The tool as a request offers it."""
        described = rng.random() < 0.4
        properties: dict[str, Any] = {}
        for ours, theirs in self.names.items():
            kind = "integer" if ours in ("timeout", "limit") else "string"
            properties[theirs] = {"type": kind}
            if described:
                properties[theirs]["description"] = f"The {theirs.replace('_', ' ')}."
        schema: dict[str, Any] = {"type": "object", "properties": properties}
        if rng.random() < 0.9:
            schema["required"] = [t for o, t in self.names.items() if o not in self.optional]
        function = {
            "name": self.tool,
            "description": rng.choice(self.descriptions),
            "parameters": schema,
        }
        return {"type": "function", "function": function}


@cache
def variants(role: str) -> tuple[Variant, ...]:
    return tuple(variant for variant in _all() if variant.role == role)


@cache
def _all() -> tuple[Variant, ...]:
    found = []
    for line in (FOLDER / "variants.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        role, tool, names, fixed, descriptions = (part.strip() for part in line.split("|"))
        pairs = [item.rstrip("*").split(":") for item in names.split()]
        found.append(
            Variant(
                role=role,
                tool=tool,
                names=dict(pairs),
                optional=tuple(i.split(":")[0] for i in names.split() if i.endswith("*")),
                descriptions=tuple(part.strip() for part in descriptions.split(";")),
                fixed=dict([fixed.split("=")]) if fixed else {},
            )
        )
    return tuple(found)


@cache
def agent() -> dict[str, Any]:
    """What `expertmesh agent` sends, as `agent.json` has it: prompts, tools, roles, shapes."""
    loaded: dict[str, Any] = json.loads((FOLDER / "agent.json").read_text(encoding="utf-8"))
    return loaded


def system(language: str, folder: str, tools: set[str]) -> str:
    """The agent's system prompt, with its lines about the tools that there are."""
    kept = []
    for line in agent()["systems"][language][0].splitlines():
        of_tool = OF_TOOL.match(line)
        if of_tool is None or of_tool[1] in tools:
            kept.append(line[of_tool.end() :] if of_tool else line)
    return "\n".join(kept).replace("{folder}", folder)
