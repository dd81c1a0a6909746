"""What can be watched of a run while it goes on?"""

from typing import Any

from expertmesh.agent.loop.verify import Check
from expertmesh.agent.tools.tool import Result
from expertmesh.clients.chat import Piece, Reply


class Watcher:
    """Called in the order in which things happen. This one shows nothing."""

    def turn_begins(self, step: int) -> None: ...

    def piece(self, piece: Piece, reply: Reply) -> None: ...

    def waits(self, seconds: float, reason: str) -> None:
        """The server is asked again after this time."""

    def turn_ended(self, step: int, reply: Reply) -> None: ...

    def call_begins(self, name: str, arguments: dict[str, Any]) -> None: ...

    def output(self, text: str) -> None:
        """What a running command prints, as it comes."""

    def call_ended(self, name: str, result: Result, seconds: float) -> None: ...

    def check_begins(self, command: str) -> None: ...

    def checked(self, check: Check) -> None: ...

    def note(self, text: str) -> None:
        """Something that a user should know, in one line."""
