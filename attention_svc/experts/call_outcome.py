"""How can a call to one pool end?"""

from dataclasses import dataclass

from rpc.hop.codec import ResultFrame


@dataclass(slots=True)
class CallAnswered:
    """A pool's Result with the round trip around it."""

    result: ResultFrame
    round_trip_s: float


class CallFailed(Exception):
    """Why a call has no answer.

    `kind`: unsent (no stream, or no credit), broken (the stream ended during the call), unreachable
    (the pool had stopped answering pings), timeout, corrupt, refused (the rows are invalid, for any
    pool), not_holding (`piece`), draining, overloaded, error.
    """

    def __init__(self, kind: str, message: str, piece: tuple[int, int] | None = None):
        super().__init__(message)
        self.kind = kind
        self.piece = piece


CallOutcome = CallAnswered | CallFailed
