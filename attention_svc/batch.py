"""A step's plain data: what the layers need to know about its rows."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attention_svc.scheduler import Slice


@dataclass(frozen=True, kw_only=True)
class ChunkMeta:
    """A sequence with several rows in this step."""

    rows: slice
    positions_T: Tensor  # int64, absolute
    block_table_W: Tensor  # int64
    num_cached: int  # positions 0..num_cached-1 are in the cache once this step's are stored


@dataclass(frozen=True, kw_only=True)
class StepMeta:
    """Rows of all sequences packed: first those with one row (decode), then the chunks."""

    token_ids_T: Tensor  # int64
    positions_T: Tensor  # int64
    slot_mapping_T: Tensor  # int64: where each row's K and V go
    num_decode: int  # the first rows, one sequence each
    decode_tables_BW: Tensor  # int64, padded with the sequence's own first block
    decode_lens_B: Tensor  # int64, cached positions once this step's are stored
    chunks: tuple[ChunkMeta, ...]
    logit_rows_B: Tensor  # int64: rows whose logits are wanted, in the order of `completing`
    is_decode: bool  # no chunk at all

    @property
    def num_rows(self) -> int:
        return self.token_ids_T.shape[0]


def pack(plan: list[Slice], block_size: int, device: torch.device) -> tuple[StepMeta, list[Slice]]:
    """A plan as tensors, and the slices in row order that want logits."""
    ordered = sorted(plan, key=lambda part: part.num_tokens > 1)  # stable: decode rows first
    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    logit_rows: list[int] = []
    completing: list[Slice] = []
    chunks: list[ChunkMeta] = []
    decode: list[Slice] = []
    for part in ordered:
        sequence, start = part.sequence, part.sequence.num_computed
        first_row = len(token_ids)
        span = range(start, start + part.num_tokens)
        token_ids += sequence.known_slice(start, part.num_tokens)
        positions += span
        table = sequence.block_table
        slots += [table[p // block_size] * block_size + p % block_size for p in span]
        if part.num_tokens == 1:
            decode.append(part)
        else:
            chunks.append(
                ChunkMeta(
                    rows=slice(first_row, len(token_ids)),
                    positions_T=torch.arange(start, span.stop, device=device),
                    block_table_W=torch.tensor(table[: -(-span.stop // block_size)], device=device),
                    num_cached=span.stop,
                )
            )
        if part.completes:
            logit_rows.append(len(token_ids) - 1)
            completing.append(part)
    lens = [part.sequence.num_computed + 1 for part in decode]
    width = -(-max(lens, default=0) // block_size)
    tables = [part.sequence.block_table[:width] for part in decode]
    # Padded with its own block: a sequence never reads what another stored, not even masked.
    padded = [table + table[:1] * (width - len(table)) for table in tables]
    meta = StepMeta(
        token_ids_T=torch.tensor(token_ids, device=device),
        positions_T=torch.tensor(positions, device=device),
        slot_mapping_T=torch.tensor(slots, device=device),
        num_decode=len(decode),
        decode_tables_BW=torch.tensor(padded, dtype=torch.int64, device=device).view(
            len(decode), width
        ),
        decode_lens_B=torch.tensor(lens, dtype=torch.int64, device=device),
        chunks=tuple(chunks),
        logit_rows_B=torch.tensor(logit_rows, dtype=torch.int64, device=device),
        is_decode=not chunks,
    )
    return meta, completing
