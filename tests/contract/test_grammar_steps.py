"""Grammars in the engine's steps: masked while the experts work, and never more than their own row."""

import time

import numpy as np
from generate_harness import WAIT_S, Service, running_service, until

from attention_svc.sampling_params import read_params
from attention_svc.sequence import EmittedToken, Outcome, Sequence
from protos import attention_pb2

ONLY = 9


class OnlyNine:
    """A grammar of nines that is whole after the third."""

    is_over_limit = False

    def __init__(self) -> None:
        self.asked_s: list[float] = []
        self.taken: list[int] = []

    def allowed(self, vocab_size: int) -> "np.ndarray":
        self.asked_s.append(time.monotonic())
        row = np.zeros(vocab_size, np.bool_)
        row[ONLY] = True
        return row

    def accept(self, token_id: int) -> bool:
        self.taken.append(token_id)
        return token_id == ONLY

    @property
    def is_complete(self) -> bool:
        return len(self.taken) == 3


def add(service: Service, grammar: OnlyNine | None, **fields: object) -> Sequence:
    known: dict = {"top_p": 1.0, "repetition_penalty": 1.0, "max_tokens": 10, "seed": 3}
    made = Sequence(
        request_id="test",
        prompt_ids=[5, 6, 7],
        output_ids=[],
        params=read_params(attention_pb2.SamplingParams(**{**known, **fields}), 64),
        stop_ids=frozenset({2}),
        grammar=grammar,  # type: ignore[arg-type]
    )
    service.engine.add(made)
    return made


async def ended(sequence: Sequence) -> tuple[list[EmittedToken], Outcome]:
    tokens: list[EmittedToken] = []
    while True:
        some, outcome = await sequence.outbox.take()
        tokens += some
        if outcome is not None:
            return tokens, outcome


async def test_the_mask_is_computed_while_the_experts_work():
    async with running_service() as service:
        service.transport.gate.clear()
        grammar = OnlyNine()
        sequence = add(service, grammar)
        await until(lambda: len(grammar.asked_s) == 1, WAIT_S)
        assert service.transport.steps == 1
        assert sequence.output_ids == []  # the first layer still waits for its experts
        service.transport.gate.set()
        tokens, outcome = await ended(sequence)
        assert [token.token_id for token in tokens] == [ONLY] * 3
        assert (outcome.reason, outcome.stop_token_id) == ("STOP", 0)
        assert len(grammar.asked_s) == 3


async def test_rows_without_a_grammar_are_left_alone_and_raw_logprobs_stay_raw():
    async with running_service() as service:
        free = add(service, None, temperature=1.0, logprobs=True)
        held = add(service, OnlyNine(), temperature=1.0, logprobs=True, min_tokens=9)
        (some, _), (nines, _) = await ended(free), await ended(held)
        alone = add(service, None, temperature=1.0, logprobs=True)
        again, _ = await ended(alone)
        assert [token.token_id for token in again] == [token.token_id for token in some]
        assert len({token.token_id for token in some}) > 1
        assert [token.token_id for token in nines] == [ONLY] * 3
        assert nines[0].logprob < -0.1  # of the distribution before the mask


async def test_a_grammar_against_a_ban_ends_in_an_error_for_that_request_only():
    async with running_service() as service:
        ban = [attention_pb2.LogitBias(token_id=ONLY, bias=-100)]
        dead, fine = add(service, OnlyNine(), logit_bias=ban), add(service, OnlyNine())
        _, outcome = await ended(dead)
        assert (outcome.reason, outcome.error) == (
            "ERROR",
            "every token is masked by the request's controls",
        )
        assert [token.token_id for token in (await ended(fine))[0]] == [ONLY] * 3


async def test_an_abort_while_masks_are_computed_ends_that_sequence_only():
    async with running_service() as service:
        service.transport.gate.clear()
        first, second = add(service, OnlyNine()), add(service, OnlyNine())
        await until(lambda: service.transport.steps == 1, WAIT_S)
        service.engine.abort(first, Outcome(reason="ABORTED"))
        service.transport.gate.set()
        assert (await ended(first))[1].reason == "ABORTED"
        assert [token.token_id for token in (await ended(second))[0]] == [ONLY] * 3
        await service.until_idle()
