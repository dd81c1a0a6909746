"""What can be watched of an assistant while it works?"""

from expertmesh.clients.chat import Piece, Reply


class Watching:
    """Called in the order in which things happen. This one shows nothing."""

    def begins(self, what: str) -> None:
        """What is being done from now on, for example "reviewing part 2 of 5"."""

    def piece(self, piece: Piece, reply: Reply) -> None:
        """Some of an answer has come."""

    def says(self, text: str) -> None:
        """How far a step without a model is."""

    def answered(self, reply: Reply) -> None:
        """An answer is whole."""

    def waits(self, seconds: float, reason: str) -> None:
        """A busy server is asked again after this time."""

    def note(self, text: str) -> None:
        """Something that a user should know, in one line."""
