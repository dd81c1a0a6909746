"""How does the scheduler's plan become tensors?"""

from array import array
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attention_svc.engine.row_shares import Slice
from moe_model.maths.step_meta import ChunkMeta, StepMeta


@dataclass(frozen=True, kw_only=True)
class Step:
    """A plan as tensors, and its slices in the order of rows."""

    meta: StepMeta
    completing: list[Slice]  # want logits
    continuing: list[Slice]  # have more known tokens to compute


def pack(plan: list[Slice], block_size: int) -> Step:
    """On the host. O(rows) in Python; what grows with the context is copied by numpy.

    Decode rows, of which there are few, become one tensor of Python's numbers: torch's and numpy's
    operators are slow between steps (docs/cold-caches.md).
    """
    ordered = row_order(plan)
    decode = ordered if _is_decode(plan) else [part for part in ordered if part.num_tokens == 1]
    num_rows = len(decode)
    # token_ids_T, positions_T, slot_mapping_T, each in parts that follow one another.
    columns = [[column] for column in _decode_columns(decode, block_size).unbind()]
    lens_B = columns.pop()[0]
    last_rows = list(range(num_rows))
    chunks: list[ChunkMeta] = []
    for part in ordered[num_rows:]:
        start, stop = span(part)
        token_ids = part.sequence.known_slice(start, part.num_tokens)
        table_W = _table(part, block_size).copy()  # which may not grow while it is looked at
        positions = np.arange(start, stop)
        slots = table_W[positions // block_size] * block_size + positions % block_size
        chunks.append(
            ChunkMeta(
                rows=slice(num_rows, num_rows + part.num_tokens),
                positions_T=torch.from_numpy(positions),
                block_table_W=torch.from_numpy(table_W),
                num_cached=stop,
            )
        )
        added = (
            torch.tensor(token_ids, dtype=torch.int64),
            torch.from_numpy(positions),
            torch.from_numpy(slots),
        )
        for column, rows in zip(columns, added, strict=True):
            column.append(rows)
        num_rows += part.num_tokens
        last_rows.append(num_rows - 1)

    completing: list[Slice] = []
    continuing: list[Slice] = []
    logit_rows: list[int] = []
    open_rows: list[int] = []
    for row, part in zip(last_rows, ordered, strict=True):
        completes = part.completes
        (completing if completes else continuing).append(part)
        (logit_rows if completes else open_rows).append(row)

    token_ids_T, positions_T, slots_T = (
        parts[0] if len(parts) == 1 else torch.cat(parts) for parts in columns
    )
    meta = StepMeta(
        token_ids_T=token_ids_T,
        positions_T=positions_T,
        slot_mapping_T=slots_T,
        num_decode=len(decode),
        decode_tables_BW=torch.from_numpy(_decode_tables(decode, block_size)),
        decode_lens_B=lens_B,
        chunks=tuple(chunks),
        logit_rows_B=torch.tensor(logit_rows, dtype=torch.int64),
        open_rows_C=torch.tensor(open_rows, dtype=torch.int64),
        is_decode=not chunks,
    )
    return Step(meta=meta, completing=completing, continuing=continuing)


def row_order(plan: list[Slice]) -> list[Slice]:
    """The slices in the order of their rows: those with one row first."""
    if _is_decode(plan):
        return plan
    return sorted(plan, key=lambda part: part.num_tokens > 1)  # stable


def _is_decode(plan: list[Slice]) -> bool:
    return all(part.num_tokens == 1 for part in plan)


def span(part: Slice) -> tuple[int, int]:
    """First position of a slice, and the one after its last."""
    start = part.sequence.num_computed + (part.picked_row is not None)
    return start, start + part.num_tokens


def partly_filled(plan: list[Slice], block_size: int) -> list[int]:
    """Blocks that a step begins and does not fill: their other rows hold a former sequence's."""
    blocks = []
    for part in plan:
        start, stop = span(part)
        block_start = stop // block_size * block_size
        if start <= block_start < stop:
            blocks.append(part.sequence.block_table[stop // block_size])
    return blocks


def _table(part: Slice, block_size: int) -> np.ndarray:
    """int64 [W]: the blocks up to the slice's last position, in the sequence's memory."""
    width = -(-span(part)[1] // block_size)
    return np.frombuffer(part.sequence.block_table, dtype=np.int64, count=width)


def _decode_columns(decode: list[Slice], block_size: int) -> Tensor:
    """int64 [4, B]: each row's token id, position, slot, and number of positions to attend to.

    An id that a step under way picks is below 0: see WholeSteps.start.
    """
    columns: tuple[list[int], list[int], list[int], list[int]] = ([], [], [], [])
    token_ids, positions, slots, lens = columns
    for part in decode:
        sequence, _, picked_row = part
        start, _ = span(part)
        block, place = divmod(start, block_size)
        token_ids.append(sequence.token_at(start) if picked_row is None else -1 - picked_row)
        positions.append(start)
        slots.append(sequence.block_table[block] * block_size + place)
        lens.append(start + 1)
    return torch.tensor(columns, dtype=torch.int64)


def _decode_tables(decode: list[Slice], block_size: int) -> np.ndarray:
    """int64 [B, W]: block tables."""
    widths = [-(-span(part)[1] // block_size) for part in decode]
    width, found = max(widths, default=0), array("q")
    for part, own in zip(decode, widths, strict=True):
        table = part.sequence.block_table
        found += table if len(table) == own else table[:own]
        if own < width:
            # Padded with its own block: a sequence never reads what another stored, even masked.
            found += table[:1] * (width - own)
    return np.frombuffer(found, dtype=np.int64).reshape(len(decode), width)
