"""Steps of nobody, to compile kernels with: stored nowhere, for no expert."""

import torch

from moe_model.kernels.cuda.graphs.step_numbers import ROWS
from moe_model.maths.step_meta import ChunkMeta, StepMeta

CHUNKS = (2, 12, 24, 48, 100, 300, 1000)
"""Numbers of rows between which other kernels or tiles are taken."""


def decode_sizes(most_rows: int) -> list[int]:
    """Of graphs for steps of so many rows."""
    largest = next((rows for rows in ROWS if rows >= most_rows), ROWS[-1])
    return [rows for rows in ROWS if rows <= largest]


def chunk_sizes(most_rows: int) -> list[int]:
    """The largest first: the others' rows find its memory."""
    return [most_rows, *(rows for rows in reversed(CHUNKS) if rows < most_rows)]


def chunk_of_nobody(num_rows: int) -> StepMeta:
    """Rows that are stored nowhere and choose no expert."""
    nothing, positions_T = torch.empty(0, dtype=torch.int64), torch.arange(num_rows)
    table_W = torch.zeros(num_rows, dtype=torch.int64)  # long enough whatever a block holds
    chunk = ChunkMeta(
        rows=slice(0, num_rows),
        positions_T=positions_T,
        block_table_W=table_W,
        num_cached=num_rows,
    )
    return StepMeta(
        token_ids_T=torch.zeros(num_rows, dtype=torch.int64),
        positions_T=positions_T,
        slot_mapping_T=torch.full((num_rows,), -1),
        num_decode=0,
        decode_tables_BW=nothing.view(0, 0),
        decode_lens_B=nothing,
        chunks=(chunk,),
        logit_rows_B=torch.tensor([num_rows - 1]),
        open_rows_C=nothing,
        is_decode=False,
    )
