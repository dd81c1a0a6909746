"""Which step can begin before the tokens of the one under way are known? The same rows once more.

A device that picks tokens by itself goes on from its own picks, and does not wait for the host
between two steps. A row whose sequence turns out to have ended is computed for nobody: what it
writes lies behind all that its sequence has published, and no other step begins before it has
ended.
"""

from collections.abc import Sequence as Rows
from dataclasses import dataclass

import numpy as np

from attention_svc.engine.row_shares import Slice
from attention_svc.engine.scheduler import Scheduler
from attention_svc.engine.step import Step, pack
from attention_svc.sampling.plain import plain_controls
from moe_model.maths.whole_steps import WholeStep


@dataclass(frozen=True)
class Ahead:
    """A step that was begun ahead of the tokens of the one before it."""

    plan: list[Slice]
    step: Step
    controls: np.ndarray
    under_way: WholeStep


def plan_ahead(scheduler: Scheduler, rows: Rows[Slice], max_model_len: int) -> list[Slice] | None:
    """The step after the one under way, of the sequences that go on for certain or perhaps.

    None: somebody waits for a place, needs more than a row, or has no room. Takes blocks.

    Args:
        rows: of the step under way, in their order; all of them pick tokens.
    """
    is_ahead = any(part.picked_row is not None for part in rows)
    if scheduler.waiting and (is_ahead or not scheduler.is_full):
        return None  # the scheduler looks at those who wait at least before every second step
    alive = [(row, part) for row, part in enumerate(rows) if not part.sequence.finished]
    if len(alive) != len(scheduler.running):
        return None
    plan = [Slice(part.sequence, 1, row) for row, part in alive if _goes_on(part, max_model_len)]
    if not plan or not all(scheduler.tables.grow(part.sequence, ahead=1) for part in plan):
        return None
    return None if scheduler.tables.has_moves else plan


def pack_ahead(plan: list[Slice], block_size: int) -> tuple[Step, np.ndarray]:
    """Its tensors and controls."""
    step = pack(plan, block_size)
    controls = plain_controls([part.sequence for part in step.completing], ahead=1)
    assert controls is not None, "whoever draws plainly goes on to do so"
    return step, controls


def _goes_on(part: Slice, max_model_len: int) -> bool:
    """Unless the token that is picked now is its last in any case."""
    sequence = part.sequence
    num_output = len(sequence.output_ids) + 1
    return num_output < sequence.params.max_tokens and sequence.num_known + 1 < max_model_len
