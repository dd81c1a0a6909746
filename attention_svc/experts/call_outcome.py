"""What can become of a call to a pool?"""

from dataclasses import dataclass

from rpc.hop.codec import ResultFrame


@dataclass(slots=True)
class CallAnswered:
    """A pool's Result with the round trip around it."""

    result: ResultFrame
    round_trip_s: float


class CallFailed(Exception):
    """Why a call has no answer.

    `kind`: unsent (no stream, no credit), broken (the stream ended in mid-call), unreachable (its
    pings went unanswered), timeout, corrupt, refused (the rows are wrong, everywhere), not_holding (`piece`), draining, overloaded, error.
    """

    def __init__(self, kind: str, message: str, piece: tuple[int, int] | None = None):
        super().__init__(message)
        self.kind = kind
        self.piece = piece


CallOutcome = CallAnswered | CallFailed
