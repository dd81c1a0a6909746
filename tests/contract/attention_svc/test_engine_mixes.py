"""Greedy output equals the reference's, for whatever mix of arrivals, lengths, chunk sizes,
preemptions, shared prefixes, failures and cancellations."""

import asyncio
import dataclasses
import functools
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention_svc.sequence.sequence import Sequence, SequenceEnd
from rpc.errors import Overloaded
from tests.support.attention_svc.engine_harness import GREEDY
from tests.support.attention_svc.generate_harness import Service, make_service, reference
from tests.support.examples import examples

MOST_TOKENS, MOST_STEPS = 14, 3000
CANCELLED = SequenceEnd(reason="ABORTED", error="cancelled")
TIE = 1e-3
"""Where the reference's two best logits are closer than this, either token is right."""


@dataclass(frozen=True, kw_only=True)
class Request:
    prompt: tuple[int, ...]
    max_tokens: int
    arrives: int
    """Step before which it comes."""
    leaves: int | None
    """Steps after that when it is cancelled, if it is."""
    mid_step: bool


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Prompts with few distinct beginnings, so that most have a prefix in common with another."""
    stem = draw(st.sampled_from(((5, 6, 7), (5, 6, 8), (9, 4, 4))))
    length = draw(st.integers(1, 40))
    prompt = (stem * 14)[:length]
    if draw(st.booleans()):
        prompt = (*prompt[:-1], draw(st.integers(10, 60)))
    return Request(
        prompt=prompt,
        max_tokens=draw(st.integers(1, MOST_TOKENS)),
        arrives=draw(st.integers(0, 25)),
        leaves=draw(st.none() | st.integers(0, 10)),
        mid_step=draw(st.booleans()),
    )


MIXES = {
    "mix": st.lists(requests(), min_size=1, max_size=10),
    "num_blocks": st.integers(14, 30),
    "block_size": st.sampled_from((4, 8)),
    "rows": st.integers(1, 30),
    "failing_step": st.none() | st.integers(0, 30),
}


@functools.cache
def expected(prompt: tuple[int, ...]) -> list[int]:
    return reference().greedy(list(prompt), MOST_TOKENS, frozenset())


def check_tokens(prompt: tuple[int, ...], output: list[int]) -> None:
    best = expected(prompt)[: len(output)]
    if output == best:
        return
    index = next(
        i for i, (ours, theirs) in enumerate(zip(output, best, strict=True)) if ours != theirs
    )
    logits_V = reference().logits([*prompt, *best[:index]])[-1]
    gap = float(logits_V[best[index]] - logits_V[output[index]])
    assert gap < TIE, f"token {index} of {prompt} is {output[index]}, not {best[index]}"


def made(request: Request) -> Sequence:
    params = dataclasses.replace(GREEDY, max_tokens=request.max_tokens)
    return Sequence(
        request_id="t",
        prompt_ids=list(request.prompt),
        output_ids=[],
        params=params,
        stop_ids=frozenset(),
    )


async def run_mix(
    mix: list[Request], *, num_blocks: int, block_size: int, rows: int, failing_step: int | None
) -> Service:
    service = make_service(
        num_blocks=num_blocks, block_size=block_size, max_batch_tokens=rows, max_running=6
    )
    engine, transport = service.engine, service.transport
    coming = sorted(mix, key=lambda request: request.arrives)
    served: list[tuple[Request, Sequence, int]] = []
    for step in range(MOST_STEPS):
        while coming and coming[0].arrives <= step:
            sequence = made(coming[0])
            try:
                engine.add(sequence)
            except Overloaded:
                break  # comes again before the next step
            served.append((coming.pop(0), sequence, step))
        gone = [
            (request.mid_step, sequence)
            for request, sequence, since in served
            if request.leaves is not None and step - since == request.leaves
        ]
        for mid_step, sequence in gone:
            if not mid_step:
                engine.finish(sequence, CANCELLED)
                assert not sequence.block_table
        middle = [sequence for mid_step, sequence in gone if mid_step]
        transport.on_submit = lambda middle=middle: [engine.finish(s, CANCELLED) for s in middle]
        transport.failure = RuntimeError("test") if step == failing_step else None
        if not await engine.step() and not coming:
            break
    assert all(sequence.finished for _, sequence, _ in served)
    assert not coming
    assert service.idle
    assert not engine.scheduler.tables._computing
    for request, sequence, _ in served:
        check_tokens(request.prompt, sequence.output_ids)
        _, outcome = await sequence.outbox.take()
        assert outcome is not None
        assert (outcome.reason == "LENGTH") == (len(sequence.output_ids) == request.max_tokens)
        assert outcome.reason in ("LENGTH", "ABORTED", "ERROR")
    return service


@examples(150, few=7)
@given(**MIXES)
def test_any_mix(
    mix: list[Request], num_blocks: int, block_size: int, rows: int, failing_step: int | None
) -> None:
    asyncio.run(
        run_mix(
            mix, num_blocks=num_blocks, block_size=block_size, rows=rows, failing_step=failing_step
        )
    )


async def test_a_crowd_that_preempts_and_shares_all_at_once() -> None:
    """Preempts and shares on purpose, which the random mixes above may not."""
    chance = Random(3)
    mix = [
        Request(
            prompt=((5, 6, 7) * 14)[: chance.choice((9, 24, 40))],
            max_tokens=MOST_TOKENS,
            arrives=index // 2,
            leaves=None,
            mid_step=False,
        )
        for index in range(16)
    ]
    service = await run_mix(mix, num_blocks=14, block_size=4, rows=12, failing_step=None)
    scheduler = service.engine.scheduler
    assert scheduler.num_preemptions > 0
    assert scheduler.tables.num_hit_tokens > 100


@pytest.mark.slow
async def test_a_thousand_cancelled_at_random_moments_are_gone_before_the_next_step() -> None:
    chance = Random(5)
    service = make_service(max_running=8, max_waiting=1000, max_waiting_tokens=10**6)
    engine = service.engine
    left, alive = 1000, []
    while left or alive:
        for _ in range(min(left, chance.randint(0, 12))):
            prompt = tuple([chance.randint(5, 6), 7] * chance.randint(1, 20))
            request = Request(prompt=prompt, max_tokens=14, arrives=0, leaves=0, mid_step=False)
            sequence = made(request)
            engine.add(sequence)
            alive.append(sequence)
            left -= 1
        chosen = {id(s) for s in alive if chance.random() < 0.2}
        gone = [sequence for sequence in alive if id(sequence) in chosen]
        alive = [sequence for sequence in alive if id(sequence) not in chosen]
        half = len(gone) // 2
        for sequence in gone[:half]:
            engine.finish(sequence, CANCELLED)
        service.transport.on_submit = lambda gone=gone[half:]: [
            engine.finish(s, CANCELLED) for s in gone
        ]
        await engine.step()
        service.transport.on_submit()
        queued = {id(s) for s in (*engine.scheduler.running, *engine.scheduler.waiting)}
        assert not queued & chosen
        assert not any(sequence.block_table for sequence in gone)
        alive = [sequence for sequence in alive if not sequence.finished]
    assert service.idle
    assert not engine.scheduler.tables._computing
    pool = service.blocks
    assert pool.num_available == pool.num_blocks
