"""How long has each sequence waited for experts since its last token, and whose time is up?

One clock for all, which runs only while a call of a step waits: whoever queues behind that step
waits as long. What a sequence has waited at the services it was moved from counts, so that no move
begins the time anew; only a first try is owed to it here.
"""

import asyncio
import time
from collections.abc import Callable, Iterable

from attention_svc.sequence.sequence import Sequence

FIRST_TRY_SHARE = 0.05
"""Of the longest wait: left to a sequence that has waited in vain elsewhere. These experts may be
missing there only, and a first failure here may be a stream that has to be dialled again."""


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
        """`sequences`: all that run or wait; `give_up` ends one of them."""
        self._timeout_s = timeout_s
        self._sequences = sequences
        self._give_up = give_up
        self._step: list[Sequence] = []
        self._past_s = 0.0  # what the clock showed when its last wait had ended
        self._began_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def awaited_s(self) -> float:
        """How long the step that runs has waited for its experts; 0 when it does not."""
        return 0.0 if self._began_s is None else time.monotonic() - self._began_s

    def waited_s(self, sequence: Sequence) -> float:
        """Since its last token, other services included; 0 for one that waits for its grammar."""
        if sequence.awaits_grammar:
            return 0.0
        return self._past_s + self.awaited_s - sequence.waits_from_s

    def left_s(self, sequence: Sequence) -> float:
        return self._timeout_s - self.waited_s(sequence)

    def enter(self, sequence: Sequence) -> None:
        """It was received, after `sequence.waited_elsewhere_s`."""
        most_s = self._timeout_s * (1 - FIRST_TRY_SHARE)
        elsewhere_s = min(sequence.waited_elsewhere_s, most_s)
        sequence.waits_from_s = self._past_s + self.awaited_s - elsewhere_s
        self._watch()

    def served(self, sequence: Sequence) -> None:
        """Its experts have answered for its next token: the next wait is another one."""
        sequence.waits_from_s = self._past_s + self.awaited_s

    def of_step(self, sequences: Iterable[Sequence]) -> "ExpertWaits":
        """Its calls wait as long as its most patient sequence may."""
        self._step = list(sequences)
        return self

    def begin(self) -> float:
        """A call of the step waits from now on; the longest that it may, in seconds."""
        self._began_s = time.monotonic()
        self._watch()
        return max((self.left_s(one) for one in self._step if not one.finished), default=0.0)

    def end(self) -> None:
        """It waits no longer."""
        self._past_s += self.awaited_s
        self._began_s = None
        self._watch()

    def _watch(self) -> None:
        """Look again when the next sequence's time is up."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._began_s is not None:
            next_s = min((self.left_s(one) for one in self._sequences()), default=self._timeout_s)
            self._timer = asyncio.get_running_loop().call_later(max(0.0, next_s), self._look)

    def _look(self) -> None:
        for sequence in list(self._sequences()):
            if self.left_s(sequence) <= 0:
                self._give_up(sequence)
        self._watch()
