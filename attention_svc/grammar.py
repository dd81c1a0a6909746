"""Which tokens may a sequence's grammar still take? Its state, and the masks of a step.

Until thinking has ended every text is allowed, but no control token other than the one that ends
thinking: the sequence cannot stop, or begin a tool call, before its grammar began.
"""

import logging
from collections.abc import Callable
from collections.abc import Sequence as Rows
from dataclasses import dataclass

import numpy as np
import torch
from llguidance import LLMatcher
from numpy.typing import NDArray
from torch import Tensor

log = logging.getLogger(__name__)

OVER_LIMIT = "the grammar took more than its limits allow; simplify it"


class GrammarState:
    """The grammar of one sequence, advanced by each of its output tokens."""

    def __init__(
        self,
        matcher: LLMatcher,
        *,
        thinking_mask: bytes,
        end_of_thinking_id: int,
        forbidden_ids: Rows[int] = (),
        on_over_limit: Callable[[], None] = lambda: None,
    ):
        """
        Args:
            matcher: this sequence's own.
            thinking_mask: a bit per id: what thinking may contain, its end apart.
            end_of_thinking_id: 0 when the output does not begin with thinking.
            forbidden_ids: never allowed, not even where the grammar is complete.
            on_over_limit: told, on the thread that noticed, when a limit was reached.
        """
        self._matcher = matcher
        self._thinking_mask = thinking_mask
        self._end_of_thinking_id = end_of_thinking_id
        self._forbidden_ids = list(forbidden_ids)
        self._on_over_limit = on_over_limit
        self._thinks = end_of_thinking_id != 0

    def accept(self, token_id: int) -> bool:
        """Take the next output token; False when the grammar does not allow it."""
        if self._thinks:
            self._thinks = token_id != self._end_of_thinking_id
            return True
        taken = bool(self._matcher.consume_token(token_id))
        if not taken:
            self._on_over_limit()
        return taken

    def accept_all(self, token_ids: Rows[int]) -> bool:
        """Take these in order; False when the grammar does not allow one."""
        return all(self.accept(token_id) for token_id in token_ids)

    @property
    def is_complete(self) -> bool:
        """The output is whole, and nothing could follow."""
        return not self._thinks and self._matcher.is_stopped() and not self.is_over_limit

    @property
    def is_over_limit(self) -> bool:
        """A limit of llguidance was reached, or our mask let through what the grammar refuses."""
        return bool(self._matcher.is_error())

    def allowed(self, vocab_size: int) -> NDArray[np.bool_]:
        """Whether each id may come next; none when the grammar went over a limit."""
        bits = self._thinking_mask if self._thinks else self._matcher.compute_bitmask()
        if self.is_over_limit:
            log.warning("a grammar failed in use: %.300s", self._matcher.get_error())
            self._on_over_limit()
            return np.zeros(vocab_size, np.bool_)
        row = np.unpackbits(np.frombuffer(bits, np.uint8), count=vocab_size, bitorder="little")
        if self._thinks:
            row[self._end_of_thinking_id] = 1
        else:
            row[self._forbidden_ids] = 0
        return row.view(np.bool_)


@dataclass(frozen=True)
class StepMasks:
    """What the grammars of some rows of a step do not allow."""

    rows: list[int]
    banned_RV: Tensor  # bool, on the CPU

    def apply(self, logits_BV: Tensor) -> None:
        """Mask it, in place."""
        banned_RV = self.banned_RV.to(logits_BV.device)
        for row, banned_V in zip(self.rows, banned_RV, strict=True):
            logits_BV[row].masked_fill_(banned_V, float("-inf"))

    def of_rows(self, kept: Rows[int]) -> "StepMasks":
        """For a step of which only the rows `kept` go on, in that order."""
        place_of = {row: place for place, row in enumerate(kept)}
        places = [i for i, row in enumerate(self.rows) if row in place_of]
        return StepMasks([place_of[self.rows[i]] for i in places], self.banned_RV[places])


def step_masks(states: Rows[tuple[int, GrammarState]], vocab_size: int) -> StepMasks:
    """The masks for the tokens after those accepted so far; (row, its grammar) each."""
    allowed_RV = np.stack([state.allowed(vocab_size) for _, state in states])
    return StepMasks([row for row, _ in states], torch.from_numpy(~allowed_RV))
