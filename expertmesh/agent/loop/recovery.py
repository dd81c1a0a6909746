"""When is a run not worth going on with? Faults that follow each other, and calls that repeat."""

import json
from typing import Any

from expertmesh.agent.loop.hints import Hints, hints_in
from expertmesh.agent.tools.tool import Effect, Status

MAX_INVALID = 3
MAX_REPEATS = 3
MAX_REFUSED = 3


class GivenUpError(Exception):
    """The run ends; the message says why."""


class Recovery:
    """Counts what goes wrong in one run."""

    def __init__(self, hints: Hints | None = None):
        """`hints`: in English by default."""
        self._hints = hints or hints_in("en")
        self._invalid = self._refused = 0
        self._counted = False
        self._made: dict[str, int] = {}

    def turn_begins(self) -> None:
        """Several invalid calls of one answer count once: the model has not been told between."""
        self._counted = False

    def invalid(self, what: str) -> None:
        """An answer that cannot be used. Raises GivenUpError at the third one in a row."""
        self._invalid += not self._counted
        self._counted = True
        if self._invalid >= MAX_INVALID:
            raise GivenUpError(f"{MAX_INVALID} unusable answers in a row, the last one: {what}")

    def refused(self) -> None:
        """A call that the user did not allow."""
        self._refused += 1
        if self._refused >= MAX_REFUSED:
            raise GivenUpError(f"{MAX_REFUSED} calls in a row were not allowed")

    def valid(self, name: str, arguments: dict[str, Any]) -> str:
        """A call that will be made; returns what to tell the model besides the result.

        Raises GivenUpError at the third call of the same tool with the same arguments, if nothing
        was changed meanwhile.
        """
        self._invalid = 0
        key = _key(name, arguments)
        self._made[key] = count = self._made.get(key, 0) + 1
        if count >= MAX_REPEATS:
            raise GivenUpError(f"the same call of {name} for the third time")
        return self._hints.repeated if count > 1 else ""

    def done(self, name: str, arguments: dict[str, Any], effect: Effect, status: Status) -> None:
        """A call was made: what changes something makes it worth while to repeat the others."""
        if status is not Status.REFUSED:
            self._refused = 0
        if effect in (Effect.WRITES, Effect.RUNS) and status is Status.OK:
            key = _key(name, arguments)
            self._made = {key: self._made.get(key, 0)}

    def told(self) -> None:
        """The model was told something new from outside, by which all calls are worth trying."""
        self._made.clear()


def _key(name: str, arguments: dict[str, Any]) -> str:
    return name + json.dumps(arguments, sort_keys=True)
