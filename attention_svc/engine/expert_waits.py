"""How long has each sequence waited for experts since its last token, and whose time is up?

One clock for all, which runs only while a call of a step waits: sequences that queue behind that
step wait as long. The time that a sequence waited at other services counts, so that a move does not
restart it; it always gets enough for a first try here.
"""

import asyncio
import time
from collections.abc import Callable, Iterable

from attention_svc.sequence.sequence import Sequence

FIRST_TRY_SHARE = 0.05
"""Of the longest wait: left to a sequence that has used up its time elsewhere. The experts may be
missing only there, and a first failure here may be a stream that has to be dialled again."""


class ExpertWaits:
    """Ends sequences whose time is up; those of one step need not have the same. One thread.

    Also the step's patience (attention_svc.experts.transport): there is one step at a time.
    """

    def __init__(
        self,
        timeout_s: float,
        sequences: Callable[[], Iterable[Sequence]],
        give_up: Callable[[Sequence], None],
    ):
        """`sequences` gives all that run or wait; `give_up` ends one of them."""
        self._timeout_s = timeout_s
        self._sequences = sequences
        self._give_up = give_up
        self._step: list[Sequence] = []
        self._past_s = 0.0  # the clock at the end of its last wait
        self._began_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def awaited_s(self) -> float:
        """How long the running step has been waiting for its experts; 0 when it is not."""
        return 0.0 if self._began_s is None else time.monotonic() - self._began_s

    def waited_s(self, sequence: Sequence) -> float:
        """Since its last token, other services included; 0 for one that waits for its grammar."""
        if sequence.awaits_grammar:
            return 0.0
        return self._past_s + self.awaited_s - sequence.waits_from_s

    def left_s(self, sequence: Sequence) -> float:
        return self._timeout_s - self.waited_s(sequence)

    def enter(self, sequence: Sequence) -> None:
        """Start a sequence's time, with what it waited elsewhere."""
        most_s = self._timeout_s * (1 - FIRST_TRY_SHARE)
        elsewhere_s = min(sequence.waited_elsewhere_s, most_s)
        sequence.waits_from_s = self._past_s + self.awaited_s - elsewhere_s
        self._watch()

    def served(self, sequence: Sequence) -> None:
        """The experts have answered for its next token: start its time again."""
        sequence.waits_from_s = self._past_s + self.awaited_s

    def of_step(self, sequences: Iterable[Sequence]) -> "ExpertWaits":
        """The patience of a step: as long as the sequence with most time left may wait."""
        self._step = list(sequences)
        return self

    def begin(self) -> float:
        """A call of the step waits from now on; the longest that it may, in seconds."""
        self._began_s = time.monotonic()
        self._watch()
        return max((self.left_s(one) for one in self._step if not one.finished), default=0.0)

    def end(self) -> None:
        """The call no longer waits."""
        self._past_s += self.awaited_s
        self._began_s = None
        self._watch()

    def _watch(self) -> None:
        """Set the timer to when the next sequence's time is up."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._began_s is not None:
            next_s = min((self.left_s(one) for one in self._sequences()), default=self._timeout_s)
            self._timer = asyncio.get_running_loop().call_later(max(0.0, next_s), self._look)

    def _look(self) -> None:
        """End the sequences whose time is up."""
        for sequence in list(self._sequences()):
            if self.left_s(sequence) <= 0:
                self._give_up(sequence)
        self._watch()
