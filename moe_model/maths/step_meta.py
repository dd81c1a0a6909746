"""Which rows does a step compute, and which pages do they read and write? Plain data."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ChunkMeta:
    """A sequence with several rows in this step."""

    rows: slice
    positions_T: Tensor  # int64, absolute
    block_table_W: Tensor  # int64
    num_cached: int  # positions 0..num_cached-1 are in the cache once this step's are stored

    def to(self, device: torch.device) -> "ChunkMeta":
        positions_T, block_table_W = self.positions_T.to(device), self.block_table_W.to(device)
        return replace(self, positions_T=positions_T, block_table_W=block_table_W)


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

    def to(self, device: torch.device) -> "StepMeta":
        """The same on another device."""
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved, chunks=tuple(chunk.to(device) for chunk in self.chunks))
