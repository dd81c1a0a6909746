"""How is a tool described, and which arguments does a role of it take?

A role is what a task needs (`run`, `view`, `edit`, ...). Several roles can be one tool: the
agent's `file_editor` views, edits and writes, told apart by `action`.
"""

import json
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
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
    """What is copied from `expertmesh agent`: its tools' definitions, and two of its messages.

    To import them would take what a web client needs. A test compares them.
    """
    loaded: dict[str, Any] = json.loads((FOLDER / "agent.json").read_text(encoding="utf-8"))
    return loaded
