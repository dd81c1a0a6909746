"""What do the grammars of running sequences allow next? Asked early, on threads.

A grammar is asked about its first token when its sequence begins to compute, and about the next one
as soon as a token was chosen, so that it answers while the layers run. Clients take turns at the
threads, so that a costly grammar delays no other client's. A row whose grammar has not answered by
the time its logits are there is kept here until it has; no step waits for it.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Rows

from torch import Tensor

from attention_svc.grammar.limits import MASK_THREADS
from attention_svc.grammar.shared_threads import SharedThreads
from attention_svc.grammar.state import OVER_LIMIT, GrammarVerdict
from attention_svc.sequence.sequence import PendingVerdict, Sequence, SequenceEnd

log = logging.getLogger(__name__)

_OVER_LIMIT = SequenceEnd(reason="ERROR", error=OVER_LIMIT, caller_error=True)
_NO_TURN = SequenceEnd(
    reason="ERROR", error="other requests' grammars took too long; try again later", retryable=True
)


class NextMasks:
    """Used from the event loop that owns the sequences; answers are in their `pending_verdict`."""

    def __init__(
        self,
        vocab_size: int,
        *,
        finish: Callable[[Sequence, SequenceEnd], None],
        wake: Callable[[], None],
        timeout_s: float,
    ):
        """
        Args:
            finish: called with a sequence that gets no next token.
            wake: called on the loop when grammars have answered.
            timeout_s: longest wait of a row for its grammar alone.
        """
        self._vocab_size = vocab_size
        self._finish = finish
        self._wake = wake
        self._timeout_s = timeout_s
        self._threads = SharedThreads(MASK_THREADS, name="masks")
        self._late: list[tuple[Sequence, Tensor]] = []
        self._answered: deque[tuple[Sequence, PendingVerdict]] = deque()
        self._is_telling = False

    def begin(self, sequence: Sequence) -> None:
        """Ask about the next token of a sequence that has a grammar, unless that was done."""
        if sequence.grammar is not None and sequence.pending_verdict is None:
            self._ask(sequence, None)

    def advance(self, sequence: Sequence, token_id: int, *, is_last: bool) -> None:
        """Ask about the token after this one; after the last, whether the output is whole."""
        self._ask(sequence, token_id)
        if is_last:
            sequence.is_ending = True
            self._limit(sequence)
            self._heed(sequence)

    def allow_sampling(self, sequence: Sequence) -> bool:
        """Whether it is not finished and its grammar, if any, has answered."""
        if sequence.pending_verdict is not None and not sequence.finished:
            if sequence.pending_verdict.verdict is None:
                return False
            self._heed(sequence)
        return not sequence.finished

    def hold(self, sequence: Sequence, logits_V: Tensor) -> None:
        """Keep its logits until `take_ready`, up to the time limit."""
        self._late.append((sequence, logits_V))
        self._limit(sequence)

    def take_ready(self) -> list[tuple[Sequence, Tensor]]:
        """Held rows whose grammars have answered; those of preempted sequences are dropped."""
        ready: list[tuple[Sequence, Tensor]] = []
        late, self._late = self._late, []
        for sequence, logits_V in late:
            if sequence.finished or sequence.num_pending:
                continue
            if self.allow_sampling(sequence):
                ready.append((sequence, logits_V))
            elif not sequence.finished:
                self._late.append((sequence, logits_V))
        return ready

    def close(self) -> None:
        self._threads.close()

    def _ask(self, sequence: Sequence, token_id: int | None) -> None:
        grammar = sequence.grammar
        assert grammar is not None
        answer = sequence.pending_verdict = PendingVerdict()
        answer.verdict = grammar.at_once(token_id, self._vocab_size)
        if answer.verdict is not None:
            return
        loop = asyncio.get_running_loop()

        def work() -> None:
            if sequence.finished:
                return
            answer.begun = True
            try:
                answer.verdict = grammar.follow(token_id, self._vocab_size)
            except Exception:  # our bug, or llguidance's: only its own request fails
                log.exception("a grammar failed in use")
                answer.verdict = GrammarVerdict()
            self._answered.append((sequence, answer))
            if not self._is_telling:
                self._is_telling = True
                with contextlib.suppress(RuntimeError):  # the loop has closed
                    loop.call_soon_threadsafe(self._tell)

        self._threads.submit(sequence.client_id, work)

    def _tell(self) -> None:
        self._is_telling = False  # first: an answer that comes later calls again
        while self._answered:
            sequence, answer = self._answered.popleft()
            if answer.timer is not None:
                answer.timer.cancel()
            self._heed(sequence)
        self._wake()

    def _heed(self, sequence: Sequence) -> None:
        """End a sequence that gets no next token."""
        verdict = sequence.verdict
        if verdict is None or sequence.finished:  # asked again since, or ended otherwise
            return
        if verdict.is_complete:
            self._finish(sequence, SequenceEnd(reason="STOP"))
        elif verdict.is_over_limit:
            self._finish(sequence, _OVER_LIMIT)
        elif verdict.banned_V is None:
            self._finish(sequence, SequenceEnd(reason="ERROR", error="internal error"))
        elif sequence.is_ending:
            self._finish(sequence, SequenceEnd(reason="LENGTH"))

    def _limit(self, sequence: Sequence) -> None:
        answer = sequence.pending_verdict
        if answer is not None and answer.verdict is None:
            loop = asyncio.get_running_loop()
            answer.timer = loop.call_later(self._timeout_s, self._give_up, sequence, answer)

    def _give_up(self, sequence: Sequence, answer: PendingVerdict) -> None:
        if not sequence.finished and answer.verdict is None:
            self._finish(sequence, _OVER_LIMIT if answer.begun else _NO_TURN)


def banned_rows(sequences: Rows[Sequence]) -> dict[int, Tensor]:
    """By row, the ids that a sequence's grammar does not allow."""
    return {
        row: sequence.verdict.banned_V
        for row, sequence in enumerate(sequences)
        if sequence.pending_verdict is not None
        and sequence.verdict is not None
        and sequence.verdict.banned_V is not None
    }
