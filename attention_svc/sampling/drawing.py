"""Which token does a temperature draw? top_k, then top_p and min_p, then one random number.

The kept tokens are in order, best first, and one is drawn by its share. Order and shares depend on
the row alone, so a request draws the same tokens alone and in a batch.
"""

from collections.abc import Sequence as Rows
from dataclasses import dataclass

import torch
from torch import Tensor

from attention_svc.sampling.candidates import block_sums, num_ranked, ranked
from attention_svc.sampling.fixed_order import running_sums
from attention_svc.sampling.random_numbers import uniform
from attention_svc.sequence.sequence import Sequence

TIE_ROOM = 64
"""Candidates beyond the largest top_k: room for logits that equal the last one."""
CANDIDATES = (256, 2048, 16_384)
"""Candidates of a row without top_k, more until they are enough; after the last, all."""
RANKED_AT_ONCE = 1_600_000
"""Tokens of all rows that are ranked together, 7 whole rows of M2's: on a card each takes about 65
bytes while it is. More rows are ranked in groups, one after the other."""
MASS_ROWS, MASS_ROWS_ON_GPU = 2, 64
"""Rows whose exponentials are taken at once: few, to stay in the processor's cache; a device waits
for each launch instead."""


@dataclass(frozen=True)
class Columns:
    """The rows' controls, [B, 1] each."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    draw: Tensor


def draw(logits_BV: Tensor, maxima_BN: Tensor, sequences: Rows[Sequence]) -> list[int]:
    """One id per row; every row has at least one token that is not masked.

    Args:
        maxima_BN: `block_maxima` of the logits.
    """
    vocab_size = logits_BV.shape[1]
    limits = [s.params.top_k if 0 < s.params.top_k < vocab_size else 0 for s in sequences]
    controls = _columns(sequences, limits, logits_BV.device)
    mass_B1 = _mass(logits_BV, maxima_BN, controls, [i for i, k in enumerate(limits) if not k])
    first = max(k + TIE_ROOM if k else CANDIDATES[0] for k in limits)
    given = (logits_BV, maxima_BN, controls, mass_B1)
    ids_B, decided_B = _pick_in_groups(*given, first)
    for count in (*(c for c in CANDIDATES if c > first), vocab_size):
        open_R = (~decided_B).nonzero()[:, 0]
        if not open_R.numel():
            break
        ids_B[open_R], decided_B[open_R] = _pick_in_groups(*given, count, open_R)
    return ids_B.tolist()


def _columns(sequences: Rows[Sequence], limits: Rows[int], device: torch.device) -> Columns:
    params = [sequence.params for sequence in sequences]
    endless = float("inf")
    columns = torch.tensor(
        [
            [p.temperature for p in params],
            [k or endless for k in limits],
            [p.top_p if p.top_p < 1.0 else endless for p in params],
            [p.min_p for p in params],
            [uniform(s.params.seed, s.choice_idx, len(s.output_ids)) for s in sequences],
        ],
        dtype=torch.float64,
    )
    return Columns(*columns.to(device)[:, :, None])


def _mass(logits_BV: Tensor, maxima_BN: Tensor, controls: Columns, rows: Rows[int]) -> Tensor:
    """Sum of exp((logit - best) / temperature), [B, 1], of the rows without top_k; others 0."""
    mass_B1 = torch.zeros_like(controls.temperature)
    at_once = MASS_ROWS if logits_BV.is_cpu else MASS_ROWS_ON_GPU
    for start in range(0, len(rows), at_once):
        some_R = torch.tensor(rows[start : start + at_once], device=logits_BV.device)
        shares_RV = logits_BV[some_R].sub_(maxima_BN[some_R].amax(dim=1, keepdim=True))
        shares_RV.div_(controls.temperature[some_R].float()).exp_()
        mass_B1[some_R, 0] = block_sums(shares_RV)
    return mass_B1


def _pick_in_groups(
    logits_BV: Tensor,
    maxima_BN: Tensor,
    controls: Columns,
    mass_B1: Tensor,
    count: int,
    rows_R: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """See `pick`. Of some rows, or of all, which are not copied if they are one group."""
    num_rows, vocab_size = logits_BV.shape
    most = max(1, RANKED_AT_ONCE // num_ranked(vocab_size, count))
    if rows_R is None:
        if num_rows <= most:
            return pick(logits_BV, maxima_BN, controls, mass_B1, count)
        rows_R = torch.arange(num_rows, device=logits_BV.device)
    picked = []
    for some_R in rows_R.split(most):
        columns = Columns(*(column[some_R] for column in vars(controls).values()))
        picked.append(pick(logits_BV[some_R], maxima_BN[some_R], columns, mass_B1[some_R], count))
    ids, decided = zip(*picked, strict=True)
    return torch.cat(ids), torch.cat(decided)


def pick(
    logits_BV: Tensor, maxima_BN: Tensor, controls: Columns, mass_B1: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """The drawn ids, and whether `count` candidates were enough to decide."""
    found = ranked(logits_BV, maxima_BN, count)
    sure_B1 = found.sure_B[:, None]
    shares_BC = ((found.values_BC - found.values_BC[:, :1]).double() / controls.temperature).exp()
    rank_C = torch.arange(shares_BC.shape[1], device=logits_BV.device)
    shares_BC = shares_BC.masked_fill(rank_C >= controls.top_k, 0.0)
    cumulative_BC = running_sums(shares_BC)
    mass_B1 = torch.where(mass_B1 > 0, mass_B1, cumulative_BC[:, -1:])
    # top_p, min_p and top_k each keep a first part of the order, at least one token.
    kept_BC = (cumulative_BC - shares_BC < controls.top_p * mass_B1) & (shares_BC >= controls.min_p)
    kept_BC &= rank_C < controls.top_k
    length_B1 = kept_BC.sum(dim=-1, keepdim=True).clamp(min=1)
    is_cut_B1 = length_B1 < shares_BC.shape[1]
    mass_B1 = torch.where(is_cut_B1, cumulative_BC.gather(1, length_B1 - 1), mass_B1)
    rank_B1 = (cumulative_BC <= controls.draw * mass_B1).sum(dim=-1, keepdim=True)
    # Rounding may put the draw at the very end: then take the last token with a share.
    last_B1 = (kept_BC & (shares_BC > 0)).sum(dim=-1, keepdim=True).clamp(min=1) - 1
    everything = (controls.top_p == float("inf")) & (controls.min_p <= 0)
    decided_B1 = torch.where(is_cut_B1, length_B1 <= sure_B1, everything & (rank_B1 < sure_B1)) | (
        sure_B1 == logits_BV.shape[1]
    )
    return found.ids_BC.gather(1, torch.minimum(rank_B1, last_B1))[:, 0], decided_B1[:, 0]
