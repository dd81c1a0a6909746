"""What are the raw log-probabilities of tokens, before any sampling control?"""

from collections.abc import Sequence as Rows

import torch
from torch import Tensor

from attention_svc.sampling.candidates import block_maxima, block_sums, ranked
from attention_svc.sequence.sequence import EmittedToken

_TIE_ROOM = 16


class RawDistribution:
    """The distributions of some rows, before the controls change the logits."""

    def __init__(self, logits_BV: Tensor, top_counts: Rows[int], *, copy: bool):
        """`top_counts`: alternatives wanted by each row. `copy`: the logits will be changed."""
        self._logits_BV = logits_BV.clone() if copy else logits_BV
        self._normaliser_B = _normalisers(logits_BV)
        self._top_counts = top_counts
        most = max(top_counts, default=0)
        if most:
            values_BC, ids_BC = _top(logits_BV, most)
            self._top_ids = ids_BC.tolist()
            self._top_values = (values_BC - self._normaliser_B[:, None]).tolist()

    def of(self, token_ids: Rows[int]) -> list[EmittedToken]:
        """One token per row."""
        ids_B = torch.tensor(token_ids, device=self._logits_BV.device)
        chosen_B = self._logits_BV.gather(1, ids_B[:, None])[:, 0] - self._normaliser_B
        return [
            EmittedToken(
                token_id,
                logprob,
                tuple(self._top_ids[row][:count]) if count else (),
                tuple(self._top_values[row][:count]) if count else (),
            )
            for row, (token_id, logprob, count) in enumerate(
                zip(token_ids, chosen_B.tolist(), self._top_counts, strict=True)
            )
        ]


def _normalisers(logits_BV: Tensor) -> Tensor:
    """Logarithms of the rows' sums of exponentials; a row's has the same bits in any batch."""
    if logits_BV.is_cpu:
        return torch.logsumexp(logits_BV, dim=-1)
    best_B1 = logits_BV.amax(dim=-1, keepdim=True)
    return (block_sums((logits_BV - best_B1).exp_()).log() + best_B1[:, 0]).float()


def _top(logits_BV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Rows of which many equals are the best are looked at in full: one by one, as that is wide."""
    maxima_BN, vocab_size = block_maxima(logits_BV), logits_BV.shape[1]
    found = ranked(logits_BV, maxima_BN, count + _TIE_ROOM)
    values_BC, ids_BC = found.values_BC[:, :count], found.ids_BC[:, :count]
    for row in (found.sure_B < min(count, vocab_size)).nonzero()[:, 0].tolist():
        one = slice(row, row + 1)
        found = ranked(logits_BV[one], maxima_BN[one], vocab_size)
        values_BC[one], ids_BC[one] = found.values_BC[:, :count], found.ids_BC[:, :count]
    return values_BC, ids_BC
