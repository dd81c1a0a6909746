"""May this call be made? What a tool can do, and what was read before, decide whether to ask."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from expertmesh.agent.tools.tool import Effect, Tool


class Approve(StrEnum):
    """What may be done without a question, besides reading."""

    ASK = "ask"
    EDITS = "edits"
    ALL = "all"


class Answer(StrEnum):
    """What the user says to one call."""

    YES = "yes"
    NO = "no"
    ALWAYS = "always"
    """Yes, and to every other call of this tool."""
    STOP = "stop"


@runtime_checkable
class EffectByCall(Protocol):
    """A tool of which some calls do less than others."""

    def effect_of(self, arguments: dict[str, Any]) -> Effect: ...


@dataclass(frozen=True)
class Question:
    """What the user is asked about."""

    tool: str
    arguments: dict[str, Any]
    effect: Effect
    after_web: bool


_WHY = {Effect.WRITES: "it changes files", Effect.RUNS: "it runs a program"}

Ask = Callable[[Question], Awaitable[Answer]]


class StoppedByUserError(Exception):
    """The user ended the run at a question, or nobody could be asked."""


def effect_of(tool: Tool, arguments: dict[str, Any]) -> Effect:
    return tool.effect_of(arguments) if isinstance(tool, EffectByCall) else tool.effect


class Approval:
    """Decides on each call of a run.

    Text from the web may hold instructions for the model. So once a page was read, every write and
    every run is asked about, whatever was allowed before, unless `trust_web`.
    """

    def __init__(self, approve: Approve, ask: Ask | None, *, trust_web: bool = False):
        """`ask`: None where nobody can be asked."""
        self._approve = approve
        self._ask = ask
        self._trust_web = trust_web
        self._always: set[tuple[str, bool]] = set()
        self.web_was_read = False

    async def allows(self, tool: Tool, arguments: dict[str, Any]) -> bool:
        """Raises StoppedByUserError."""
        effect = effect_of(tool, arguments)
        after_web = self.web_was_read and not self._trust_web
        if not self._wants_question(effect, after_web) or (tool.name, after_web) in self._always:
            return True
        if self._ask is None:
            why = "a page from the web was read before it" if after_web else _WHY[effect]
            how = "--i-know" if after_web and self._approve is Approve.ALL else "--approve all"
            raise StoppedByUserError(
                f"{tool.name} needs approval ({why}) and there is no terminal to ask on: run it in "
                f"one, or give {how}"
            )
        answer = await self._ask(Question(tool.name, arguments, effect, after_web))
        if answer is Answer.STOP:
            raise StoppedByUserError(f"you ended the run at a call of {tool.name}")
        if answer is Answer.ALWAYS:
            self._always.add((tool.name, after_web))
        return answer is not Answer.NO

    def _wants_question(self, effect: Effect, after_web: bool) -> bool:
        if effect not in (Effect.WRITES, Effect.RUNS):
            return False
        if after_web or self._approve is Approve.ASK:
            return True
        return self._approve is Approve.EDITS and effect is Effect.RUNS
