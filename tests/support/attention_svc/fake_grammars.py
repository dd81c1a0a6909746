"""Grammars for engine tests: what they allow, and when they answer, is the test's choice."""

import threading
from typing import Any

import numpy as np
import torch

from attention_svc.grammar.state import GrammarVerdict
from attention_svc.sequence.params import read_params
from attention_svc.sequence.sequence import EmittedToken, Sequence, SequenceEnd
from protos import attention_pb2
from tests.support.attention_svc.generate_harness import Service

ONLY = 9
STUCK_S = 10.0
"""Bound of that wait: a test that never calls `let` fails instead of hanging."""


class OnlyNine:
    """A grammar of nines that is complete after the third."""

    is_over_limit = False

    def __init__(self) -> None:
        self.asked = 0
        self.taken: list[int] = []

    def allowed(self, vocab_size: int) -> "np.ndarray":
        self.asked += 1
        row = np.zeros(vocab_size, np.bool_)
        row[ONLY] = True
        return row

    def accept(self, token_id: int) -> bool:
        self.taken.append(token_id)
        return token_id == ONLY

    @property
    def is_complete(self) -> bool:
        return len(self.taken) == 3

    def at_once(self, token_id: int | None, vocab_size: int) -> GrammarVerdict | None:
        return None

    def follow(self, token_id: int | None, vocab_size: int) -> GrammarVerdict:
        if token_id is not None:
            if not self.accept(token_id):
                return GrammarVerdict(is_over_limit=True)
            if self.is_complete:
                return GrammarVerdict(is_complete=True)
        return GrammarVerdict(torch.from_numpy(~self.allowed(vocab_size)))


class Odd(OnlyNine):
    """Odd ids, any number of them: what is drawn depends on the row's random numbers."""

    is_complete = False

    def allowed(self, vocab_size: int) -> "np.ndarray":
        self.asked += 1
        return np.arange(vocab_size) % 2 == 1

    def accept(self, token_id: int) -> bool:
        self.taken.append(token_id)
        return token_id % 2 == 1


class Held:
    """Mixed into a grammar: each mask, or each accepted token, waits for a call of `let`."""

    held_up = "allowed"

    def __init__(self) -> None:
        super().__init__()
        self._leave = threading.Semaphore(0)

    def let(self, times: int = 1) -> None:
        self._leave.release(times)

    def allowed(self, vocab_size: int) -> "np.ndarray":
        row = super().allowed(vocab_size)
        self._wait("allowed")
        return row

    def accept(self, token_id: int) -> bool:
        taken = super().accept(token_id)
        self._wait("accept")
        return taken

    def _wait(self, where: str) -> None:
        if self.held_up == where:
            assert self._leave.acquire(timeout=STUCK_S), "nobody let it go on"


class HeldNine(Held, OnlyNine):
    pass


class HeldOdd(Held, Odd):
    pass


class NineHeldAtTokens(Held, OnlyNine):
    held_up = "accept"


class OddHeldAtTokens(Held, Odd):
    held_up = "accept"


def add(
    service: Service,
    grammar: Any,
    *,
    prompt: list[int] | None = None,
    client_id: str = "",
    **fields: Any,
) -> Sequence:
    """`fields`: of SequenceParams."""
    known: dict = {"top_p": 1.0, "repetition_penalty": 1.0, "max_tokens": 10, "seed": 3}
    made = Sequence(
        request_id="test",
        prompt_ids=prompt or [5, 6, 7],
        output_ids=[],
        params=read_params(attention_pb2.SamplingParams(**{**known, **fields}), 64),
        stop_ids=frozenset() if fields.get("ignore_eos") else frozenset({2}),
        client_id=client_id,
        grammar=grammar,
    )
    service.engine.add(made)
    return made


async def ended(sequence: Sequence) -> tuple[list[EmittedToken], SequenceEnd]:
    tokens: list[EmittedToken] = []
    while True:
        some, outcome = await sequence.outbox.take()
        tokens += some
        if outcome is not None:
            return tokens, outcome


async def ids(sequence: Sequence) -> list[int]:
    return [token.token_id for token in (await ended(sequence))[0]]
