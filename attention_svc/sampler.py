"""Which token comes next? All sampling controls, over the whole batch at once.

Order: logit bias and penalties, masking of stops before min_tokens, then greedy
(ties to the lower id) or temperature, top_k, top_p, min_p and one random number
per token. Log-probabilities are of the raw distribution, before all of this.
"""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from attention_svc.random_numbers import uniform
from attention_svc.sequence import EmittedToken, Sequence

TIE_ROOM = 64
"""Candidates beyond the largest top_k: room for logits that equal the last one."""


@dataclass(frozen=True)
class SamplingFailed:
    """This sequence's logits allow no token; the rest of the batch is untouched."""

    reason: str


@torch.inference_mode()
def sample(logits_BV: Tensor, sequences: list[Sequence]) -> list[EmittedToken | SamplingFailed]:
    """One token per sequence.

    Args:
        logits_BV: float32; row b belongs to sequences[b]. Not changed.
        sequences: with their output so far: penalties and random numbers depend on it.
    """
    finite_B = torch.isfinite(logits_BV.sum(dim=-1)) | torch.isfinite(logits_BV).all(dim=-1)
    changed_BV = _controlled(logits_BV, sequences)
    best_B, chosen_B = changed_BV.max(dim=-1)
    chosen = chosen_B.tolist()
    sampled = [i for i, s in enumerate(sequences) if not s.params.is_greedy]
    if sampled:
        picks = _draw(changed_BV[sampled], [sequences[i] for i in sampled])
        for index, token_id in zip(sampled, picks, strict=True):
            chosen[index] = token_id
    results: list[EmittedToken | SamplingFailed] = []
    finite, best = finite_B.tolist(), best_B.tolist()
    for index, sequence in enumerate(sequences):
        if not finite[index]:
            results.append(SamplingFailed("the model produced NaN or infinite logits"))
        elif best[index] == float("-inf"):
            results.append(SamplingFailed("every token is masked by the request's controls"))
        elif sequence.params.logprobs:
            results.append(_with_logprobs(logits_BV[index], chosen[index], sequence))
        else:
            results.append(EmittedToken(chosen[index]))
    return results


def _controlled(logits_BV: Tensor, sequences: list[Sequence]) -> Tensor:
    """Logits after biases, penalties and the min_tokens mask; a copy only when needed."""
    touched = [
        i
        for i, s in enumerate(sequences)
        if s.params.changes_logits or len(s.output_ids) < s.params.min_tokens
    ]
    if not touched:
        return logits_BV
    changed_BV = logits_BV.clone()
    for index in touched:
        _control_row(changed_BV[index], sequences[index])
    return changed_BV


def _control_row(logits_V: Tensor, sequence: Sequence) -> None:
    """In place. Source of the penalties' formulas: OpenAI's API reference, CTRL (repetition)."""
    params = sequence.params
    if params.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*sequence.prompt_ids, *sequence.output_ids}))
        values = logits_V[seen]
        penalty = params.repetition_penalty
        logits_V[seen] = torch.where(values > 0, values / penalty, values * penalty)
    if (params.presence_penalty or params.frequency_penalty) and sequence.output_ids:
        counts = Counter(sequence.output_ids)
        ids = torch.tensor(list(counts))
        times = torch.tensor(list(counts.values()), dtype=torch.float32)
        logits_V[ids] -= params.presence_penalty + params.frequency_penalty * times
    for token_id, bias in params.logit_bias:
        # The API's -100 bans a token; adding it to a large logit might not.
        logits_V[token_id] = float("-inf") if bias <= -100 else logits_V[token_id] + bias
    if len(sequence.output_ids) < params.min_tokens and sequence.stop_ids:
        logits_V[sorted(sequence.stop_ids)] = float("-inf")


def _draw(logits_BV: Tensor, sequences: list[Sequence]) -> list[int]:
    """Sample rows whose temperature is above greedy."""
    params = [sequence.params for sequence in sequences]
    vocab_size = logits_BV.shape[1]
    device = logits_BV.device

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=device)[:, None]

    scaled_BV = logits_BV / column([p.temperature for p in params]).float()
    # Only as many candidates as the largest top_k are ever needed.
    keep = max(p.top_k if 0 < p.top_k < vocab_size else vocab_size for p in params)
    ids_BC = _candidates(scaled_BV, keep)
    scaled_BC = scaled_BV.gather(1, ids_BC)
    ordered_BC, order_BC = scaled_BC.sort(dim=-1, descending=True, stable=True)
    ids_BC = ids_BC.gather(1, order_BC)
    ranks_C = torch.arange(ordered_BC.shape[1], device=device)
    limits = [p.top_k if p.top_k > 0 else vocab_size for p in params]
    over_k = ranks_C[None, :] >= torch.tensor(limits, device=device)[:, None]
    probs_BC = ordered_BC.masked_fill(over_k, float("-inf")).double().softmax(dim=-1)
    before_BC = probs_BC.cumsum(dim=-1) - probs_BC
    dropped = (before_BC >= column([p.top_p for p in params])) | (
        probs_BC < column([p.min_p for p in params]) * probs_BC[:, :1]
    )
    dropped[:, 0] = False  # at least one token always survives
    kept_BC = probs_BC.masked_fill(dropped, 0.0)
    cdf_BC = kept_BC.cumsum(dim=-1)
    draws = column([uniform(s.params.seed, s.choice_idx, len(s.output_ids)) for s in sequences])
    picks_B = (cdf_BC <= draws * cdf_BC[:, -1:]).sum(dim=-1)
    # Rounding may put the draw on the very end: the last kept token then.
    last_B = (kept_BC > 0).long().mul(ranks_C[None, :]).amax(dim=-1)
    return ids_BC.gather(1, torch.minimum(picks_B, last_B)[:, None])[:, 0].tolist()


def _candidates(logits_BV: Tensor, keep: int) -> Tensor:
    """Ids of at least the `keep` best of each row, ascending; of equal logits the lower ids."""
    vocab_size = logits_BV.shape[1]
    if keep + TIE_ROOM < vocab_size:
        # topk's choice among equal logits at its border is unspecified: that border must lie
        # below the one of `keep`, or a row's token would depend on the rest of the batch.
        best = logits_BV.topk(keep + TIE_ROOM, dim=-1)
        if bool((best.values[:, keep - 1] > best.values[:, -1]).all()):
            return best.indices.sort(dim=-1).values
    return torch.arange(vocab_size, device=logits_BV.device).expand(logits_BV.shape[0], -1)


def _with_logprobs(logits_V: Tensor, token_id: int, sequence: Sequence) -> EmittedToken:
    logprobs_V = torch.log_softmax(logits_V, dim=-1)
    count = sequence.params.top_logprobs
    values, ids = logprobs_V.topk(count) if count else (torch.empty(0), torch.empty(0))
    return EmittedToken(
        token_id,
        float(logprobs_V[token_id]),
        tuple(int(i) for i in ids.tolist()),
        tuple(values.tolist()),
    )
