"""Which tools does one conversation have for its roles, and how does it call them?"""

import json
import random
from dataclasses import dataclass, field
from typing import Any

from demo_model import tools as others
from demo_model.chat import Call
from demo_model.toolboxes import definitions
from demo_model.toolboxes.definitions import Variant

AGENT_SHARE = 0.6
WHOLE_SHARE = 0.55
"""Of the agent's conversations those that have all its tools, as the agent offers them."""


@dataclass(frozen=True, kw_only=True)
class Toolbox:
    """Tools on offer, and for each role the call that plays it."""

    offered: list[dict[str, Any]]
    calls: dict[str, tuple[str, dict[str, str], dict[str, str]]] = field(default_factory=dict)
    """Role -> (tool, our name of an argument -> theirs, fixed arguments)"""
    is_agent: bool
    """Whether these are the agent's own tools, whose results come in the agent's own shapes."""

    def has(self, role: str) -> bool:
        return role in self.calls

    def call(self, role: str, **arguments: Any) -> Call:
        tool, names, fixed = self.calls[role]
        given = {**fixed, **{names[ours]: value for ours, value in arguments.items()}}
        return tool, given


def draw(
    rng: random.Random, roles: tuple[str, ...], *, agent_share: float = AGENT_SHARE
) -> Toolbox:
    """Tools for these roles, and some that are of no use here, in any order."""
    if rng.random() < agent_share:
        return _of_agent(rng, roles)
    chosen: dict[str, Variant] = {}
    while len({variant.tool for variant in chosen.values()}) < len(roles):
        chosen = {role: rng.choice(definitions.variants(role)) for role in roles}
    offered = [variant.define(rng) for variant in chosen.values()]
    taken = {tool["function"]["name"] for tool in offered}
    count = rng.choice((0, 1, 2, 4, 6))
    offered += [t for t in others.irrelevant(rng, count) if _unlike(t, roles, taken)]
    rng.shuffle(offered)
    return Toolbox(
        offered=offered,
        calls={role: (v.tool, v.names, v.fixed) for role, v in chosen.items()},
        is_agent=False,
    )


def _of_agent(rng: random.Random, roles: tuple[str, ...]) -> Toolbox:
    """The agent's own tools: all of them as it sends them, or those needed and some others."""
    calls = {role: tuple(definitions.agent()["roles"][role]) for role in roles}
    needed = {call[0] for call in calls.values()}
    offered = whole(rng, web=bool(needed & set(WEB)) or rng.random() < 0.2)
    if rng.random() >= WHOLE_SHARE:
        kept = rng.choice((0.0, 0.3, 0.7))
        offered = [
            tool for tool in offered if tool["function"]["name"] in needed or rng.random() < kept
        ]
        if rng.random() < 0.5:
            rng.shuffle(offered)
    return Toolbox(offered=offered, calls=calls, is_agent=True)


def whole(rng: random.Random, *, web: bool = False) -> list[dict[str, Any]]:
    """All the agent's tools, as it sends them on some machine."""
    agent = definitions.agent()
    own = (*agent["own"], *(WEB if web else ()))
    return [_on_a_machine(rng, t) for t in agent["tools"] if t["function"]["name"] in own]


WEB = ("web_search", "fetch", "browser")
LANGUAGES = ("python", "bash", "javascript", "ruby", "perl", "c")


def _on_a_machine(rng: random.Random, tool: dict[str, Any]) -> dict[str, Any]:
    """code_runner names the languages that the machine has; the other tools are always alike."""
    if tool["function"]["name"] != "code_runner":
        return tool
    found = ["python", *(name for name in LANGUAGES[1:] if rng.random() < 0.6)]
    copy = json.loads(json.dumps(tool))
    function = copy["function"]
    function["description"] = function["description"].replace("{languages}", ", ".join(found))
    function["parameters"]["properties"]["language"]["enum"] = found
    return copy


SIMILAR = {
    "run": ("run_shell",),
    "view": ("read_file",),
    "write": ("write_file",),
    "find": ("search_web", "get_news", "search_books"),
    "open": ("summarize_page", "download_file"),
    "search": ("list_files",),
}


def _unlike(tool: dict[str, Any], roles: tuple[str, ...], taken: set[str]) -> bool:
    """Whether a tool of no use here could not be taken for one of those needed."""
    name = tool["function"]["name"]
    return name not in taken and not any(name in SIMILAR.get(role, ()) for role in roles)
