"""Which tokens of each row are the best? Exact, without sorting the vocabulary.

One pass takes the maximum of every `BLOCK` neighbouring ids. The `count` best tokens of a row are
in the `count` blocks with the largest maxima, so everything after that pass works on few tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attention_svc.sampling.fixed_order import row_sums

BLOCK = 64
"""Ids per block: small enough that `count` blocks are few tokens, large enough for few blocks."""


def block_maxima(logits_BV: Tensor) -> Tensor:
    """The largest logit of each block of ids; the last block may be short."""
    return _by_block(logits_BV, lambda part: part.amax(dim=-1))


def block_sums(values_BV: Tensor) -> Tensor:
    """float64 sums of float32 rows; a row's sum is the same in any batch.

    Blocks are summed one by one: torch may split a long row between threads, but not a block.
    """
    return row_sums(_by_block(values_BV, row_sums).double())


def best(logits_BV: Tensor, maxima_BN: Tensor) -> tuple[Tensor, Tensor]:
    """The largest logit of each row and its id, the lowest id among equals."""
    best_B, block_B = maxima_BN.max(dim=-1)  # documented: the first among equals
    ids_BC = block_B[:, None] * BLOCK + torch.arange(BLOCK, device=logits_BV.device)
    within_B = _gather(logits_BV, ids_BC).argmax(dim=-1)
    return best_B, block_B * BLOCK + within_B


@dataclass(frozen=True)
class Ranked:
    """The best tokens of each row, best first, the lower id first among equals."""

    values_BC: Tensor
    ids_BC: Tensor
    sure_B: Tensor
    """How many ranks are certain; after those, equal logits may be missing."""


def num_ranked(vocab_size: int, count: int) -> int:
    """Tokens of a row that `ranked` gives back: all when `count` is a quarter of them or more."""
    return vocab_size if 4 * count >= vocab_size else count


def ranked(logits_BV: Tensor, maxima_BN: Tensor, count: int) -> Ranked:
    """The `count` best tokens of each row, or all: see `num_ranked`."""
    vocab_size = logits_BV.shape[1]
    if num_ranked(vocab_size, count) == vocab_size:
        values_BC, ids_BC = logits_BV.sort(dim=-1, descending=True, stable=True)
        sure_B = torch.full(values_BC.shape[:1], vocab_size, device=logits_BV.device)
        return Ranked(values_BC, ids_BC, sure_B)
    if 4 * count * BLOCK >= vocab_size:  # the blocks would be most of the row
        ids_BC = logits_BV.topk(count, dim=-1, sorted=False).indices
    else:
        blocks_BC = maxima_BN.topk(count, dim=-1, sorted=False).indices
        inside = torch.arange(BLOCK, device=logits_BV.device)
        ids_BC = (blocks_BC[:, :, None] * BLOCK + inside).flatten(1)
        places_BC = _gather(logits_BV, ids_BC).topk(count, dim=-1, sorted=False).indices
        ids_BC = ids_BC.gather(1, places_BC)
    ids_BC = ids_BC.sort(dim=-1).values
    values_BC, order_BC = logits_BV.gather(1, ids_BC).sort(dim=-1, descending=True, stable=True)
    # What was left out is at most as large as the last one here.
    sure_B = (values_BC > values_BC[:, -1:]).sum(dim=-1)
    return Ranked(values_BC, ids_BC.gather(1, order_BC), sure_B)


def _by_block(values_BV: Tensor, reduce) -> Tensor:  # type: ignore[no-untyped-def]
    whole = values_BV.shape[1] // BLOCK * BLOCK
    blocks_BN = reduce(values_BV[:, :whole].unflatten(1, (-1, BLOCK)))
    if whole == values_BV.shape[1]:
        return blocks_BN
    return torch.cat([blocks_BN, reduce(values_BV[:, whole:])[:, None]], dim=1)


def _gather(logits_BV: Tensor, ids_BC: Tensor) -> Tensor:
    """Logits of the ids; ids beyond the vocabulary, in a short last block, are masked."""
    last = logits_BV.shape[1] - 1
    values_BC = logits_BV.gather(1, ids_BC.clamp(max=last))
    return values_BC.masked_fill(ids_BC > last, float("-inf"))
