"""A scheduler of few blocks, and what the engine does with its steps, for tests."""

from collections.abc import Callable

from attention_svc.engine.row_shares import Slice
from attention_svc.engine.scheduler import Scheduler
from attention_svc.kv.block_pool import BlockPool
from attention_svc.kv.block_tables import BlockTables
from attention_svc.sequence.sequence import Sequence

BLOCK = 4


def scheduler(blocks: int = 8, **limits: int) -> Scheduler:
    known = {
        "max_batch_tokens": 16,
        "max_running": 4,
        "max_waiting": 6,
        "max_waiting_tokens": 10_000,
    }
    tables = BlockTables(BlockPool(blocks), block_size=BLOCK, prefix_cache=False)
    return Scheduler(tables, **{**known, **limits})


def carry_out(planner: Scheduler, plan: list[Slice]) -> list[Sequence]:
    """What the engine does with a step; returns the sequences that finished."""
    finished = []
    for part in plan:
        completes = part.completes
        part.sequence.num_computed += part.num_tokens
        planner.tables.publish(part.sequence)
        if completes:
            part.sequence.output_ids.append(7)
            if len(part.sequence.output_ids) >= part.sequence.params.max_tokens:
                finished.append(part.sequence)
    for done in finished:
        planner.remove(done)
    return finished


def steps_until(planner: Scheduler, done: Callable[[], bool]) -> int:
    steps = 0
    while not done():
        carry_out(planner, planner.schedule())
        steps += 1
        assert steps < 10_000
    return steps
