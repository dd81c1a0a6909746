"""A slow grammar holds up its own row only, and not for ever."""

import asyncio
import functools
import time
from collections.abc import Callable
from random import Random

import pytest

from attention_svc.grammar.state import OVER_LIMIT, GrammarVerdict
from attention_svc.sequence.sequence import Sequence, SequenceEnd
from tests.support.attention_svc.fake_grammars import (
    ONLY,
    HeldNine,
    HeldOdd,
    NineHeldAtTokens,
    Odd,
    OddHeldAtTokens,
    OnlyNine,
    add,
    ended,
    ids,
)
from tests.support.attention_svc.generate_harness import (
    Service,
    heard,
    request,
    running_service,
    stub_of,
    until,
)

TURN_S = 5.0
"""Half of what a held grammar waits for its test."""


async def in_time(awaitable):
    async with asyncio.timeout(TURN_S):
        return await awaitable


@pytest.mark.parametrize("kind", [HeldNine, NineHeldAtTokens])
async def test_rows_beside_one_whose_grammar_is_late_go_on(kind: Callable[[], HeldNine]):
    async with running_service() as service:
        grammar = kind()
        late = add(service, grammar)
        free = add(service, None, ignore_eos=True)
        tokens, outcome = await in_time(ended(free))
        assert (len(tokens), outcome.reason) == (10, "LENGTH")
        assert len(late.output_ids) < 2
        assert not late.finished
        grammar.let(9)
        pending = late.pending_verdict
        assert await in_time(ids(late)) == [ONLY] * 3
        await service.until_idle()
        assert pending is not None
        assert pending.timer is not None
        assert pending.timer.cancelled(), "it would keep the mask for as long as it runs"


@pytest.mark.parametrize("kind", [HeldOdd, OddHeldAtTokens])
async def test_a_late_row_draws_the_tokens_that_it_draws_in_time(kind: Callable[[], HeldOdd]):
    async with running_service() as service:
        usual = await in_time(ids(add(service, Odd(), temperature=1.0)))
        assert len(set(usual)) > 2
        grammar = kind()
        late = add(service, grammar, temperature=1.0)
        beside = add(service, None, prompt=[9, 8], temperature=1.0, max_tokens=60, ignore_eos=True)
        for known in range(len(usual)):
            await until(lambda known=known: len(late.output_ids) >= known, TURN_S)
            steps = service.transport.steps
            await until(lambda steps=steps: service.transport.steps > steps + 1 or beside.finished)
            grammar.let()
        grammar.let()
        assert await in_time(ids(late)) == usual
        assert len(await in_time(ids(beside))) == 60
        assert service.engine._metrics.late_masks._value.get() > 0


async def test_alone_it_is_sampled_as_soon_as_its_grammar_answers():
    async with running_service() as service:
        grammar = HeldNine()
        late = add(service, grammar)
        for known in range(3):
            await until(lambda known=known: grammar.asked == known + 1, TURN_S)
            await until(lambda known=known: service.transport.steps == known + 1, TURN_S)
            assert len(late.output_ids) == known
            grammar.let()
        assert await in_time(ids(late)) == [ONLY] * 3
        assert service.transport.steps in (3, 4), "the last may have begun before it was whole"


async def test_one_clients_costly_grammars_delay_no_other_clients():
    async with running_service() as service:
        costly = [HeldNine() for _ in range(4)]
        held = [add(service, grammar, client_id="a") for grammar in costly]
        assert await in_time(ids(add(service, OnlyNine(), client_id="b"))) == [ONLY] * 3
        assert sum(grammar.asked for grammar in costly) == 1, "the other thread is for others"
        for grammar in costly:
            grammar.let(9)
        for sequence in held:
            assert await in_time(ids(sequence)) == [ONLY] * 3
        await service.until_idle()


async def test_requests_without_a_grammar_ask_no_thread(monkeypatch: pytest.MonkeyPatch):
    async with running_service() as service:
        asked: list[object] = []
        monkeypatch.setattr(
            service.engine._masks._threads, "submit", lambda *what: asked.append(what)
        )
        assert len(await in_time(ids(add(service, None, ignore_eos=True)))) == 10
        assert asked == []


async def test_an_abort_while_its_grammar_is_late_frees_all_it_had():
    async with running_service() as service:
        grammar = HeldNine()
        late = add(service, grammar)
        await until(lambda: service.transport.steps == 1 and grammar.asked == 1, TURN_S)
        service.engine.finish(late, SequenceEnd(reason="ABORTED"))
        assert (await in_time(ended(late)))[1].reason == "ABORTED"
        await service.until_idle()
        grammar.let(9)
        assert await in_time(ids(add(service, OnlyNine()))) == [ONLY] * 3


class Broken(OnlyNine):
    def follow(self, token_id: int | None, vocab_size: int) -> GrammarVerdict:
        if token_id is not None:
            raise RuntimeError("a bug")
        return super().follow(token_id, vocab_size)


async def test_a_grammar_that_raises_fails_its_own_request():
    async with running_service() as service:
        broken, fine = add(service, Broken()), add(service, OnlyNine())
        tokens, outcome = await in_time(ended(broken))
        assert (outcome.reason, outcome.error) == ("ERROR", "internal error")
        assert not outcome.caller_error
        assert [token.token_id for token in tokens] == [ONLY]
        assert await in_time(ids(fine)) == [ONLY] * 3
        await service.until_idle()


async def test_a_grammar_that_never_answers_ends_its_request_and_no_other():
    async with running_service(mask_timeout_s=0.05) as service:
        grammar = HeldNine()
        stuck = add(service, grammar, client_id="a")
        queued = add(service, OnlyNine(), client_id="a")
        outcome = (await in_time(ended(stuck)))[1]
        assert (outcome.error, outcome.caller_error) == (OVER_LIMIT, True)
        outcome = (await in_time(ended(queued)))[1]
        assert (outcome.reason, outcome.retryable, outcome.caller_error) == ("ERROR", True, False)
        assert await in_time(ids(add(service, OnlyNine(), client_id="b"))) == [ONLY] * 3
        await service.until_idle()
        grammar.let(9)


@pytest.mark.parametrize(
    "kind, allowed, reason",
    [
        (NineHeldAtTokens, 3, "STOP"),
        (NineHeldAtTokens, 2, "LENGTH"),
        (OddHeldAtTokens, 2, "LENGTH"),
    ],
)
async def test_what_ended_an_answer_is_known_once_the_grammar_took_its_last_token(
    kind: Callable[[], HeldNine], allowed: int, reason: str
):
    async with running_service() as service:
        grammar = kind()
        sequence = add(service, grammar, max_tokens=allowed)
        grammar.let(allowed - 1)
        await until(lambda: len(sequence.output_ids) == allowed, TURN_S)
        steps = service.transport.steps
        await until(lambda: len(grammar.taken) == allowed, TURN_S)
        assert not sequence.finished
        grammar.let()
        tokens, outcome = await in_time(ended(sequence))
        assert (len(tokens), outcome.reason) == (allowed, reason)
        assert service.transport.steps == steps, "there was nothing to compute"


class RefusesItsLast(OnlyNine):
    def accept(self, token_id: int) -> bool:
        self.taken.append(token_id)
        return len(self.taken) < 2


async def test_a_last_token_that_the_grammar_refuses_is_an_error():
    async with running_service() as service:
        _, outcome = await in_time(ended(add(service, RefusesItsLast(), max_tokens=2)))
        assert (outcome.error, outcome.caller_error) == (OVER_LIMIT, True)


async def test_a_late_row_that_is_preempted_computes_again_and_says_the_same():
    async with running_service(num_blocks=6, prefix_cache=False, max_waiting=8) as service:
        usual = await in_time(ids(add(service, Odd(), temperature=1.0, max_tokens=20)))
        old = add(service, None, prompt=[4] * 8, max_tokens=32, ignore_eos=True)
        grammar = HeldOdd()
        late = add(service, grammar, temperature=1.0, max_tokens=20)
        grammar.let(8)
        await until(lambda: service.engine.scheduler.num_preemptions or old.finished, TURN_S)
        assert service.engine.scheduler.num_preemptions
        grammar.let(40)
        assert await in_time(ids(late)) == usual
        assert len(await in_time(ids(old))) == 32
        await service.until_idle()


async def test_a_first_answer_without_a_token_ends_the_request_while_its_prompt_computes():
    class TooMuch(OnlyNine):
        def follow(self, token_id: int | None, vocab_size: int) -> GrammarVerdict:
            return GrammarVerdict(is_over_limit=True)

    async with running_service() as service:
        service.transport.gate.clear()
        sequence = add(service, TooMuch())
        outcome = (await in_time(ended(sequence)))[1]
        assert outcome.caller_error
        service.transport.gate.set()
        await service.until_idle()


async def test_the_requests_own_deadline_ends_a_row_whose_grammar_is_late():
    class Late(HeldNine):
        is_complete = False

    async with running_service() as service, stub_of(service) as stub:
        grammar = Late()

        async def start(*_: object, **__: object) -> Late:
            return grammar

        service.servicer._grammars.start = start
        answer = await in_time(heard(stub, request(timeout_ms=200, grammar_id=b"x")))
        assert (answer.reason, answer.tokens) == ("DEADLINE", [])
        await service.until_idle()
        grammar.let(9)


class OddAtTimes(Odd):
    """Late or in time, at random."""

    def __init__(self, chance: Random) -> None:
        super().__init__()
        self._chance = chance

    def follow(self, token_id: int | None, vocab_size: int) -> GrammarVerdict:
        verdict = super().follow(token_id, vocab_size)
        time.sleep(self._chance.choice([0.0, 0.0, 0.002, 0.01]))
        return verdict


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_comes_late_everybody_says_what_it_says_alone(seed: int):
    """Sequences with and without grammars, of three clients, for which there are too few blocks."""

    def asked(service: Service, chance: Random) -> list[Callable[[], Sequence]]:
        return [
            functools.partial(
                add,
                service,
                OddAtTimes(chance) if number % 2 else None,
                prompt=[3 + number] * (2 + 5 * number),
                client_id="abc"[number % 3],
                seed=number + 1,
                temperature=1.0,
                max_tokens=24,
                ignore_eos=True,
            )
            for number in range(6)
        ]

    async with running_service(num_blocks=14, prefix_cache=False) as service:
        alone = [await in_time(ids(start())) for start in asked(service, Random(seed))]
        together = [start() for start in asked(service, Random(seed))]
        assert await in_time(asyncio.gather(*map(ids, together))) == alone
        assert service.engine.scheduler.num_preemptions > 0
        assert service.engine._metrics.late_masks._value.get() > 0
        await service.until_idle()
