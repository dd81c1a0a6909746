"""Which token does each row take where nobody asks for more than a temperature and a small top_k?

The same as `sample` would take, by operators alone, so that a device can draw at the end of its
step: it need not wait for the host, nor the host for its logits.
"""

from collections.abc import Sequence as Rows

import numpy as np
import torch
from torch import Tensor

from attention_svc.sampling.candidates import block_maxima
from attention_svc.sampling.controls import is_controlled
from attention_svc.sampling.drawing import CANDIDATES, TIE_ROOM, Columns, pick
from attention_svc.sampling.random_numbers import uniform
from attention_svc.sequence.sequence import Sequence

NUM_CONTROLS = 5
_GREEDY = (1.0, 1.0, np.inf, 0.0, 0.0)
MOST_TOP_K = CANDIDATES[0] - TIE_ROOM


def plain_controls(sequences: Rows[Sequence], *, ahead: int = 0) -> np.ndarray | None:
    """float64 [5, B]: temperature, top_k, top_p, min_p, random number; None: one asks for more.

    A greedy row is one of which only the best is kept.

    Args:
        ahead: tokens that come before the ones to draw, and are not known yet.
    """
    rows = []
    for sequence in sequences:
        params = sequence.params
        if params.logprobs or sequence.grammar is not None or is_controlled(sequence):
            return None
        if params.is_greedy:
            rows.append(_GREEDY)
        elif 0 < params.top_k <= MOST_TOP_K:
            top_p = params.top_p if params.top_p < 1.0 else np.inf
            index = len(sequence.output_ids) + ahead
            number = uniform(params.seed, sequence.choice_idx, index)
            rows.append((params.temperature, params.top_k, top_p, params.min_p, number))
        else:
            return None
    return np.array(rows, dtype=np.float64).reshape(-1, NUM_CONTROLS).T.copy()


def pick_plain(logits_BV: Tensor, controls: Tensor) -> Tensor:
    """int64 [B]; -1 where equal logits leave it open. No host synchronisation.

    Args:
        controls: float64 [5, B], see `plain_controls`.
    """
    columns = Columns(*controls[:, :, None])
    no_mass_B1 = torch.zeros_like(columns.temperature)
    ids_B, decided_B = pick(logits_BV, block_maxima(logits_BV), columns, no_mass_B1, CANDIDATES[0])
    return torch.where(decided_B, ids_B, -1)


def draws(controls: np.ndarray) -> bool:
    """Whether any row needs more than its best."""
    return bool((controls[1] != 1.0).any())
