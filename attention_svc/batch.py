"""A step's plain data: what the layers need to know about its rows."""

from dataclasses import dataclass

import numpy as np
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
    open_rows_C: Tensor  # int64: last rows of the others, in the order of `continuing`
    is_decode: bool  # no chunk at all

    @property
    def num_rows(self) -> int:
        return self.token_ids_T.shape[0]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A plan as tensors, and its slices in row order."""

    meta: StepMeta
    completing: list[Slice]  # want logits
    continuing: list[Slice]  # have more known tokens to compute


def pack(plan: list[Slice], block_size: int, device: torch.device) -> Step:
    """O(rows) in Python; what grows with the context is copied by numpy."""
    ordered = row_order(plan)
    token_ids: list[int] = []
    positions: list[np.ndarray] = []
    slots: list[np.ndarray] = []
    last_rows: list[int] = []
    chunks: list[ChunkMeta] = []
    num_decode = 0
    for part in ordered:
        start, stop = span(part)
        first_row = len(token_ids)
        token_ids += part.sequence.known_slice(start, part.num_tokens)
        last_rows.append(len(token_ids) - 1)
        table_W = _table(part, block_size)
        positions_T = np.arange(start, stop)
        positions.append(positions_T)
        slots.append(table_W[positions_T // block_size] * block_size + positions_T % block_size)
        if part.num_tokens == 1:
            num_decode += 1
        else:
            chunks.append(
                ChunkMeta(
                    rows=slice(first_row, len(token_ids)),
                    positions_T=torch.from_numpy(positions_T).to(device),
                    block_table_W=torch.from_numpy(table_W).to(device),
                    num_cached=stop,
                )
            )
    tables_BW, lens_B = _decode_tables(ordered[:num_decode], block_size)

    def rows_of(completes: bool) -> Tensor:
        rows = [
            row for row, part in zip(last_rows, ordered, strict=True) if part.completes is completes
        ]
        return torch.tensor(rows, dtype=torch.int64, device=device)

    meta = StepMeta(
        token_ids_T=torch.tensor(token_ids, device=device),
        positions_T=torch.from_numpy(np.concatenate(positions)).to(device),
        slot_mapping_T=torch.from_numpy(np.concatenate(slots)).to(device),
        num_decode=num_decode,
        decode_tables_BW=torch.from_numpy(tables_BW).to(device),
        decode_lens_B=torch.from_numpy(lens_B).to(device),
        chunks=tuple(chunks),
        logit_rows_B=rows_of(True),
        open_rows_C=rows_of(False),
        is_decode=not chunks,
    )
    completing = [part for part in ordered if part.completes]
    continuing = [part for part in ordered if not part.completes]
    return Step(meta=meta, completing=completing, continuing=continuing)


def row_order(plan: list[Slice]) -> list[Slice]:
    """The slices in the order of their rows: those with one row first."""
    return sorted(plan, key=lambda part: part.num_tokens > 1)  # stable


def span(part: Slice) -> tuple[int, int]:
    """First position of a slice, and the one after its last."""
    return part.sequence.num_computed, part.sequence.num_computed + part.num_tokens


def partly_filled(plan: list[Slice], block_size: int) -> list[int]:
    """Blocks that a step begins and does not fill: the rest of them still holds what a
    former sequence left there."""
    blocks = []
    for part in plan:
        start, stop = span(part)
        block_start = stop // block_size * block_size
        if start <= block_start < stop:
            blocks.append(part.sequence.block_table[stop // block_size])
    return blocks


def _table(part: Slice, block_size: int) -> np.ndarray:
    """int64 [W]: the blocks up to the slice's last position."""
    _, stop = span(part)
    return np.array(part.sequence.block_table[: -(-stop // block_size)], dtype=np.int64)


def _decode_tables(decode: list[Slice], block_size: int) -> tuple[np.ndarray, np.ndarray]:
    """int64 [B, W] and [B]: block tables, and how many positions count."""
    lens_B = np.array([span(part)[1] for part in decode], dtype=np.int64)
    width = -(-int(lens_B.max(initial=0)) // block_size)
    tables_BW = np.empty((len(decode), width), dtype=np.int64)
    for row_W, part in zip(tables_BW, decode, strict=True):
        table_W = _table(part, block_size)
        row_W[: len(table_W)] = table_W
        # Padded with its own block: a sequence never reads what another stored, not even masked.
        row_W[len(table_W) :] = table_W[0]
    return tables_BW, lens_B
