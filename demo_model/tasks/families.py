"""Which families of tasks are there, and how often is each trained?"""

from collections.abc import Callable

from demo_model.chat import Conversation
from demo_model.draw import Draw
from demo_model.tasks import (
    compute,
    data,
    debug,
    files,
    recovery,
    repair,
    research,
    review,
    tool_choice,
    write_tests,
)

FAMILIES: dict[str, Callable[[Draw], Conversation]] = {
    "tool_choice": tool_choice.make,
    "compute": compute.make,
    "read_file": files.read,
    "write_file": files.write,
    "rename": files.rename,
    "repair": repair.make,
    "recovery": recovery.make,
    "review": review.make,
    "write_tests": write_tests.make,
    "debug": debug.make,
    "explain_error": debug.explain,
    "data": data.make,
    "research": research.make,
}
"""Family -> its generator."""

OF_TEMPLATES = ("repair", "recovery", "review", "write_tests", "debug", "explain_error", "rename")
"""Families of which whole templates are held out."""

SHARES: dict[str, tuple[float, int]] = {
    "tool_choice": (7, 610),
    "compute": (6, 820),
    "read_file": (4, 1010),
    "write_file": (3, 1090),
    "rename": (2, 1420),
    "repair": (19, 1690),
    "recovery": (8, 1870),
    "review": (6, 360),
    "write_tests": (4, 350),
    "debug": (5, 1510),
    "explain_error": (2, 265),
    "data": (5, 790),
    "research": (5, 1390),
}
"""Family -> (its share of all tokens in percent, tokens of one conversation)."""
OLD_SHARE, OLD_TOKENS = 24.0, 210
"""The same for all single skills together."""


def chances() -> dict[str, float]:
    """How often each family is drawn, and "" for a single skill; adds up to 1."""
    drawn = {name: share / tokens for name, (share, tokens) in SHARES.items()}
    drawn[""] = OLD_SHARE / OLD_TOKENS
    total = sum(drawn.values())
    return {name: value / total for name, value in drawn.items()}
