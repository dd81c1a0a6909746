"""Which tokens does a sequence's grammar allow next? Its state, advanced token by token.

Until thinking has ended all text is allowed, but no control token other than the one that ends
thinking: the sequence cannot stop, or begin a tool call, before its grammar applies.
"""

import logging
import time
from collections.abc import Callable
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from llguidance import LLMatcher
from numpy.typing import NDArray
from torch import Tensor

from attention_svc.grammar.tokens import Taker

log = logging.getLogger(__name__)

_OWN_LIMIT = "Parser Error: Current row has "
"""llguidance's error when a limit of this sequence alone was hit, not one that copies share."""
OVER_LIMIT = "the grammar took more than its limits allow; simplify it"

BRIEF_S = 0.001
"""Grammars with longer masks take their tokens without the interpreter's lock."""


@dataclass(frozen=True)
class GrammarVerdict:
    """What a grammar says about the next token."""

    banned_V: Tensor | None = None  # bool, on the CPU; None: there is no next token
    is_complete: bool = False
    """The output is complete, and nothing can follow."""
    is_over_limit: bool = False


@dataclass
class GrammarCost:
    """How long the masks of a grammar have taken, in all its copies."""

    _longest_s: float | None = None

    @property
    def is_brief(self) -> bool:
        """No mask took long; a mask tries every token, so taking one costs no more."""
        return self._longest_s is not None and self._longest_s < BRIEF_S

    def note(self, mask_s: float) -> None:
        self._longest_s = max(self._longest_s or 0.0, mask_s)


class Grammar(Protocol):
    """What the engine needs of a `GrammarState`."""

    def at_once(self, token_id: int | None, vocab_size: int) -> GrammarVerdict | None: ...

    def follow(self, token_id: int | None, vocab_size: int) -> GrammarVerdict: ...


class GrammarState:
    """The grammar of one sequence, advanced by its output tokens. One thread at a time."""

    def __init__(
        self,
        matcher: LLMatcher,
        *,
        taker: Taker,
        cost: GrammarCost,
        thinking_mask: bytes,
        end_of_thinking_id: int,
        forbidden_ids: Rows[int] = (),
        on_worn_out: Callable[[], None] = lambda: None,
    ):
        """
        Args:
            matcher: a copy for this sequence alone.
            cost: shared by all copies of the grammar.
            thinking_mask: a bit per id that thinking may contain, without the id that ends it.
            end_of_thinking_id: 0 when the output does not begin with thinking.
            forbidden_ids: never allowed, even where the grammar is complete.
            on_worn_out: called, on the thread that notices, when a limit was hit that all copies of
                the grammar share.
        """
        self._matcher = matcher
        self._taker = taker
        self._cost = cost
        self._thinking_mask = thinking_mask
        self._end_of_thinking_id = end_of_thinking_id
        self._forbidden_ids = list(forbidden_ids)
        self._on_worn_out = on_worn_out
        self._thinks = end_of_thinking_id != 0
        self._while_thinking: GrammarVerdict | None = None

    def at_once(self, token_id: int | None, vocab_size: int) -> GrammarVerdict | None:
        """As `follow`, while thinking, where it is no work; else None, and nothing is taken."""
        if not self._thinks or token_id == self._end_of_thinking_id:
            return None
        if self._while_thinking is None:
            self._while_thinking = GrammarVerdict(torch.from_numpy(~self.allowed(vocab_size)))
        return self._while_thinking

    def follow(self, token_id: int | None, vocab_size: int) -> GrammarVerdict:
        """Take the next output token, if there is one, and say what may come after it.

        Takes tens of milliseconds, or seconds, for a costly grammar, mostly without the
        interpreter's lock.
        """
        if token_id is not None:
            if not self.accept(token_id):
                return GrammarVerdict(is_over_limit=True)
            if self.is_complete:
                return GrammarVerdict(is_complete=True)
        allowed_V = self.allowed(vocab_size)
        if self.is_over_limit:
            return GrammarVerdict(is_over_limit=True)
        return GrammarVerdict(torch.from_numpy(~allowed_V))

    def accept(self, token_id: int, *, is_masked: bool = True) -> bool:
        """Take the next output token; False when the grammar does not allow it.

        `is_masked`: its mask was computed, so that the token's cost is known.
        """
        if self._thinks:
            self._thinks = token_id != self._end_of_thinking_id
            return True
        taken = (
            self._matcher.consume_token(token_id)
            if is_masked and self._cost.is_brief
            else self._taker.take(self._matcher, token_id)
        )
        if not taken:
            self._tell_why()
        return taken

    def accept_all(self, token_ids: Rows[int]) -> bool:
        """Take these in order; False when the grammar does not allow one."""
        return all(self.accept(token_id, is_masked=False) for token_id in token_ids)

    @property
    def is_complete(self) -> bool:
        """The output is complete, and nothing can follow."""
        return not self._thinks and self._matcher.is_stopped() and not self.is_over_limit

    @property
    def is_over_limit(self) -> bool:
        """A limit of llguidance was hit, or the mask allowed what the grammar refuses."""
        return bool(self._matcher.is_error())

    def allowed(self, vocab_size: int) -> NDArray[np.bool_]:
        """bool [V]: whether each id may come next; none when the grammar is over a limit."""
        if self._thinks:
            bits = self._thinking_mask
        else:
            started_s = time.perf_counter()
            bits = self._matcher.compute_bitmask()
            self._cost.note(time.perf_counter() - started_s)
        if self.is_over_limit:
            self._tell_why()
            return np.zeros(vocab_size, np.bool_)
        row = np.unpackbits(np.frombuffer(bits, np.uint8), count=vocab_size, bitorder="little")
        if self._thinks:
            row[self._end_of_thinking_id] = 1
        else:
            row[self._forbidden_ids] = 0
        return row.view(np.bool_)

    def _tell_why(self) -> None:
        error = self._matcher.get_error()
        log.warning("a grammar failed in use: %.300s", error)
        if not error.startswith(_OWN_LIMIT):
            self._on_worn_out()
