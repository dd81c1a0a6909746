"""Steps that begin before the tokens of the one before are known: the tokens are the same."""

import asyncio
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention_svc.engine.ahead import plan_ahead
from attention_svc.engine.layer_stack import LayerStack
from attention_svc.engine.row_shares import Slice
from attention_svc.engine.scheduler import Scheduler
from attention_svc.kv.block_pool import BlockPool
from attention_svc.kv.block_tables import BlockTables
from attention_svc.kv.moves import MoveOut
from attention_svc.sequence.sequence import Sequence, SequenceEnd
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from tests.support.attention_svc.engine_harness import BLOCK_SIZE, open_engine, run_to_end
from tests.support.attention_svc.sequences import sequence
from tests.support.attention_svc.token_device import TokenDevice, Tokens
from tests.support.examples import examples

BLOCKS = 40
STOPS = (3, 4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder, seed=4)
    return Checkpoint.open(folder)


def device_of(checkpoint: Checkpoint, seed: int = 0, **tokens: int) -> TokenDevice:
    made = Tokens(checkpoint.config.vocab_size, **tokens)
    return TokenDevice(checkpoint.config, made, BLOCKS * BLOCK_SIZE, BLOCK_SIZE, seed)


def expected(one: Sequence, tokens: Tokens) -> list[int]:
    """Its output, computed a token at a time by nobody's rows but its own."""
    output: list[int] = []
    while len(output) < one.params.max_tokens:
        token = tokens.after([*one.prompt_ids, *output])
        if token is None:
            break
        output.append(token)
        if token in one.stop_ids:
            break
    return output


def on(device: TokenDevice):
    def prepare(stack: LayerStack) -> None:
        stack._whole, stack.picks = device, True
        stack.cache.copy = device.copy

    return prepare


def greedy(checkpoint: Checkpoint, prompt: list[int], **fields) -> Sequence:
    return sequence(prompt, vocab=checkpoint.config.vocab_size, temperature=0.0, **fields)


async def test_most_steps_of_a_lonely_sequence_begin_ahead(checkpoint: Checkpoint) -> None:
    device = device_of(checkpoint)
    one = greedy(checkpoint, [5, 6, 7], max_tokens=40)
    await run_to_end(checkpoint, [one], num_blocks=BLOCKS, prepare=on(device))
    assert one.output_ids == expected(one, device.tokens)
    # Not the prompt's, the first decode's, for which a graph is made, and the one after it.
    assert (device.num_steps, device.num_ahead) == (40, 37)


async def test_no_step_is_made_for_a_token_beyond_the_last(checkpoint: Checkpoint) -> None:
    device = device_of(checkpoint)
    ours = [greedy(checkpoint, [5 + i, 6], max_tokens=10 + 5 * i) for i in range(3)]
    await run_to_end(checkpoint, ours, num_blocks=BLOCKS, prepare=on(device))
    assert [one.output_ids for one in ours] == [expected(one, device.tokens) for one in ours]
    assert device.num_steps == 20
    assert device.num_ahead > 8


async def test_a_stop_costs_one_row_of_one_step(checkpoint: Checkpoint) -> None:
    device = device_of(checkpoint)
    prompt = [5, 6, 7]
    twelfth = expected(greedy(checkpoint, prompt, max_tokens=12), device.tokens)[-1]
    one = greedy(checkpoint, prompt, max_tokens=40, stop_ids=(twelfth,))
    await run_to_end(checkpoint, [one], num_blocks=BLOCKS, prepare=on(device))
    assert len(one.output_ids) == 12
    assert device.num_steps == 13


async def test_random_numbers_are_those_of_each_tokens_place(checkpoint: Checkpoint) -> None:
    """Controls are made before the token before is known, and are as if they were not."""
    given_numbers = []
    for ahead in (True, False):
        device = device_of(checkpoint)
        one = sequence(
            [5, 6, 7], vocab=checkpoint.config.vocab_size, temperature=1.0, top_k=4, max_tokens=20
        )
        if not ahead:
            device.is_short = lambda *_: False
        await run_to_end(checkpoint, [one], num_blocks=BLOCKS, prepare=on(device))
        assert (device.num_ahead > 0) == ahead
        given_numbers.append([controls.tolist() for controls in device.controls])
    assert given_numbers[0] == given_numbers[1]


@examples(60, few=12)
@given(
    seed=st.integers(0, 10**6),
    open_in=st.sampled_from([3, 20, 10**9]),
    bad_in=st.sampled_from([50, 10**9]),
    max_running=st.sampled_from([2, 5, 16]),
    host_in=st.sampled_from([4, 10**9]),
)
async def test_whatever_comes_and_goes_everybody_gets_the_tokens_of_a_run_alone(
    checkpoint: Checkpoint, seed: int, open_in: int, bad_in: int, max_running: int, host_in: int
) -> None:
    """Arrivals, stops, cancellations, preemption, shared prefixes, tokens left to the host."""
    chance = random.Random(seed)
    device = device_of(checkpoint, seed, open_in=open_in, bad_in=bad_in)

    def drawn() -> Sequence:
        prompt = [5, 6, 7, 8] * 5 if chance.random() < 0.5 else []
        prompt = [*prompt, *(chance.randrange(5, 12) for _ in range(chance.randrange(1, 40)))]
        told = {"logprobs": True} if chance.randrange(host_in) == 0 else {}
        return greedy(
            checkpoint,
            prompt,
            max_tokens=chance.randrange(1, 60),
            stop_ids=STOPS if chance.random() < 0.5 else (),
            client_id=chance.choice("ab"),
            **told,
        )

    async def come(engine, ours: list[Sequence]) -> None:
        for _ in range(chance.randrange(2, 14)):
            one = drawn()
            engine.add(one)
            ours.append(one)
            for _ in range(chance.choice([0, 0, 3, 40])):
                await asyncio.sleep(0)
            if chance.random() < 0.2:
                left = chance.choice(ours)
                engine.finish(left, SequenceEnd(reason="ABORTED"))
                cancelled.add(id(left))

    cancelled: set[int] = set()
    ours: list[Sequence] = []
    async with (
        open_engine(
            checkpoint,
            num_blocks=BLOCKS,
            max_batch_tokens=48,
            max_running=max_running,
            prepare=on(device),
        ) as (engine, _),
        asyncio.timeout(60),
    ):
        await come(engine, ours)
        while not engine.idle:
            await asyncio.sleep(0)
    for one in ours:
        wanted = expected(one, device.tokens)
        if id(one) in cancelled:
            assert one.output_ids == wanted[: len(one.output_ids)]
        else:
            assert one.output_ids == wanted


async def test_those_who_wait_are_looked_at_before_every_second_step(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    schedule = Scheduler.schedule

    def noted(self: Scheduler):
        looks.append(device.num_steps)
        return schedule(self)

    monkeypatch.setattr(Scheduler, "schedule", noted)
    device = device_of(checkpoint)
    ours = [greedy(checkpoint, [5, 6 + i], max_tokens=30) for i in range(3)]
    await run_to_end(checkpoint, ours, num_blocks=BLOCKS, max_running=2, prepare=on(device))
    assert [one.output_ids for one in ours] == [expected(one, device.tokens) for one in ours]
    while_somebody_waits = [step for step in looks if step < 28]
    gaps = [b - a for a, b in itertools.pairwise(while_somebody_waits)]
    assert max(gaps) == 2
    assert device.num_ahead > 30


async def test_blocks_that_are_to_be_moved_out_first_keep_the_next_step_back() -> None:
    one = sequence(BLOCK_SIZE, max_tokens=8)
    scheduler = Scheduler(
        BlockTables(BlockPool(4), block_size=BLOCK_SIZE),
        max_batch_tokens=64,
        max_running=4,
        max_waiting=4,
        max_waiting_tokens=100,
    )
    scheduler.add(one)
    plan = scheduler.schedule()
    assert plan_ahead(scheduler, plan, 100) == [Slice(one, 1, 0)]
    scheduler.tables._moves.append(MoveOut(block=3, slot=0))
    assert plan_ahead(scheduler, plan, 100) is None
