"""How do a request's controls change its logits? Penalties, biases, masks; a few ids of each row.

The ids of all rows go into one gather and one scatter, so that the cost grows with the ids touched
and not with the vocabulary. Source of the formulas: OpenAI's API reference; CTRL for repetition.
"""

from collections.abc import Sequence as Rows

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attention_svc.sequence.seen_tokens import SeenTokens
from attention_svc.sequence.sequence import Sequence


def is_controlled(sequence: Sequence) -> bool:
    """Whether `apply_controls` touches this sequence's row."""
    return sequence.params.changes_logits or _holds_stops_back(sequence)


def apply_controls(logits_BV: Tensor, sequences: Rows[Sequence]) -> None:
    """In place: repetition penalty, presence and frequency, biases; then what is masked."""
    controlled = [(row, s) for row, s in enumerate(sequences) if is_controlled(s)]
    _penalise(logits_BV, [(r, s) for r, s in controlled if s.params.has_penalties])
    _bias(logits_BV, [(r, s) for r, s in controlled if s.params.logit_bias])
    _keep_allowed(logits_BV, [(r, s) for r, s in controlled if s.params.allowed_token_ids])
    _mask(logits_BV, [(r, s) for r, s in controlled if _holds_stops_back(s) or s.params.banned])


def _holds_stops_back(sequence: Sequence) -> bool:
    return len(sequence.output_ids) < sequence.params.min_tokens and bool(sequence.stop_ids)


def _penalise(logits_BV: Tensor, rows: Rows[tuple[int, Sequence]]) -> None:
    if not rows:
        return
    ids, counts = [], []
    for _, sequence in rows:
        if sequence.seen is None:
            repeats = sequence.params.repetition_penalty != 1.0
            sequence.seen = SeenTokens(sequence.prompt_ids if repeats else ())
        row_ids, row_counts = sequence.seen.update(sequence.output_ids)
        ids.append(row_ids)
        counts.append(row_counts)
    lengths = [len(row_ids) for row_ids in ids]

    def spread(values: Rows[float]) -> Tensor:
        return torch.from_numpy(np.repeat(np.array(values, np.float32), lengths)).to(
            logits_BV.device
        )

    params = [sequence.params for _, sequence in rows]
    penalty_I = spread([p.repetition_penalty for p in params])
    flat = _flat(logits_BV, [r for r, _ in rows], ids)
    values_I = logits_BV.view(-1)[flat]
    values_I = torch.where(values_I > 0, values_I / penalty_I, values_I * penalty_I)
    count_I = torch.from_numpy(np.concatenate(counts)).to(logits_BV.device)
    presence_I = spread([p.presence_penalty for p in params])
    values_I -= presence_I * (count_I > 0) + spread([p.frequency_penalty for p in params]) * count_I
    logits_BV.view(-1)[flat] = values_I


def _bias(logits_BV: Tensor, rows: Rows[tuple[int, Sequence]]) -> None:
    if not rows:
        return
    ids, biases = zip(*(sequence.params.bias_arrays for _, sequence in rows), strict=True)
    bias_I = torch.from_numpy(np.concatenate(biases)).to(logits_BV.device)
    # Accumulated: a caller may name an id twice.
    flat = _flat(logits_BV, [r for r, _ in rows], ids)
    logits_BV.view(-1).index_add_(0, flat, bias_I)


def _keep_allowed(logits_BV: Tensor, rows: Rows[tuple[int, Sequence]]) -> None:
    if not rows:
        return
    ids = [np.array(sequence.params.allowed_token_ids, np.int64) for _, sequence in rows]
    flat = _flat(logits_BV, [row for row, _ in rows], ids)
    kept = logits_BV.view(-1)[flat]
    logits_BV[[row for row, _ in rows]] = float("-inf")
    logits_BV.view(-1)[flat] = kept


def _mask(logits_BV: Tensor, rows: Rows[tuple[int, Sequence]]) -> None:
    """Stops before min_tokens, and what would complete a banned sequence."""
    if not rows:
        return
    masked = []
    for _, sequence in rows:
        stops = sequence.stop_ids if _holds_stops_back(sequence) else ()
        ids = np.array([*stops], np.int64)
        if sequence.params.banned is not None:
            ids = np.concatenate([ids, sequence.params.banned.next_ids(sequence.output_ids)])
        masked.append(ids)
    flat = _flat(logits_BV, [row for row, _ in rows], masked)
    logits_BV.view(-1)[flat] = float("-inf")


def _flat(logits_BV: Tensor, rows: Rows[int], ids: Rows[NDArray[np.int64]]) -> Tensor:
    """Indices of each row's ids in the flattened logits."""
    starts = np.repeat(
        np.array(rows, np.int64) * logits_BV.shape[1], [len(row_ids) for row_ids in ids]
    )
    return torch.from_numpy(starts + np.concatenate(ids)).to(logits_BV.device)
