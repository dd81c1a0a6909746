"""Which token comes next? All sampling controls, for the whole batch at once.

Order: ids without a tokenizer entry, raw log-probabilities, penalties and biases, masks (allowed
ids, stops before min_tokens, banned sequences, grammars), then greedy (ties to the lower id) or
temperature, top_k, top_p, min_p and one random number per token.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Rows
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attention_svc.sampling.candidates import best, block_maxima
from attention_svc.sampling.controls import apply_controls, is_controlled
from attention_svc.sampling.drawing import draw
from attention_svc.sampling.logprobs import RawDistribution
from attention_svc.sequence.sequence import EmittedToken, Sequence

PLAIN_ROWS = 4
"""For so few rows numpy on one core is done before torch has started."""


@dataclass(frozen=True)
class SamplingFailed:
    """This sequence's logits allow no token; the rest of the batch is untouched."""

    reason: str
    caller_error: bool = False
    """The request itself is the cause."""


@torch.inference_mode()
def sample(
    logits_BV: Tensor,
    sequences: Rows[Sequence],
    *,
    missing_ids: Tensor | None = None,
    banned: Mapping[int, Tensor] | None = None,
    picked: Rows[int] | None = None,
) -> list[EmittedToken | SamplingFailed]:
    """One token per sequence.

    Args:
        logits_BV: float32, contiguous; row b belongs to sequences[b]. Changed in place.
        sequences: with their output so far: penalties and random numbers depend on it.
        missing_ids: int64, ids without a token: never sampled, in no distribution.
        banned: bool [V] by row: ids that the row's grammar does not allow.
        picked: what the model's device drew already, by the same rules; -1: not for this row.
    """
    if not sequences:
        return []
    if picked is not None and min(picked) >= 0:
        return [EmittedToken(token_id) for token_id in picked]
    if not banned and missing_ids is None and len(sequences) <= PLAIN_ROWS:
        plain = _plain_greedy(logits_BV, sequences)
        if plain is not None:
            return plain
    finite = _finite_rows(logits_BV)
    if missing_ids is not None:
        logits_BV.index_fill_(1, missing_ids, float("-inf"))
    told = [i for i, s in enumerate(sequences) if s.params.logprobs]
    raw = None
    if told:
        whole = len(told) == len(sequences)
        raw = RawDistribution(
            logits_BV if whole else logits_BV[told],
            [sequences[i].params.top_logprobs for i in told],
            copy=whole and (bool(banned) or any(is_controlled(s) for s in sequences)),
        )
    apply_controls(logits_BV, sequences)
    for row, banned_V in (banned or {}).items():
        logits_BV[row].masked_fill_(banned_V.to(logits_BV.device), float("-inf"))
    maxima_BN = block_maxima(logits_BV)
    best_B, chosen_B = best(logits_BV, maxima_BN)
    possible, chosen = (best_B > float("-inf")).tolist(), chosen_B.tolist()
    drawn = [
        i for i, s in enumerate(sequences) if not s.params.is_greedy and finite[i] and possible[i]
    ]
    if drawn:
        whole = len(drawn) == len(sequences)
        picks = draw(
            logits_BV if whole else logits_BV[drawn],
            maxima_BN if whole else maxima_BN[drawn],
            [sequences[i] for i in drawn],
        )
        for index, token_id in zip(drawn, picks, strict=True):
            chosen[index] = token_id
    results: list[EmittedToken | SamplingFailed] = [EmittedToken(token_id) for token_id in chosen]
    if raw is not None:
        for index, token in zip(told, raw.of([chosen[i] for i in told]), strict=True):
            results[index] = token
    for index in range(len(sequences)):
        if not finite[index]:
            results[index] = SamplingFailed("the model produced NaN or infinite logits")
        elif not possible[index]:
            results[index] = SamplingFailed(
                "every token is masked by the request's controls", caller_error=True
            )
    return results


def _plain_greedy(
    logits_BV: Tensor, sequences: Rows[Sequence]
) -> list[EmittedToken | SamplingFailed] | None:
    """The best tokens of a few rows that nobody asks more of, else None, also for bad numbers.

    Three operators instead of a dozen: see docs/cold-caches.md.
    """
    if not logits_BV.is_cpu or not _only_best(sequences):
        return None
    logits = logits_BV.numpy()
    if not np.isfinite(logits.sum(axis=1)).all():
        return None
    # numpy returns the first among equals.
    return [EmittedToken(token_id) for token_id in logits.argmax(axis=1).tolist()]


def _only_best(sequences: Rows[Sequence]) -> bool:
    """Whether nobody asks for more than the best token."""
    return all(
        one.params.is_greedy and not one.params.logprobs and not is_controlled(one)
        for one in sequences
    )


def _finite_rows(logits_BV: Tensor) -> list[bool]:
    """A finite sum proves a finite row; a sum that is not may only have overflowed."""
    finite = torch.isfinite(logits_BV.sum(dim=-1)).tolist()
    return [ok or bool(torch.isfinite(logits_BV[i]).all()) for i, ok in enumerate(finite)]
