"""How likely were the prompt's own tokens? Scored chunk by chunk, as the prompt is computed."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attention_svc.engine.row_shares import Slice
from attention_svc.engine.step import row_order
from attention_svc.sampling.logprobs import RawDistribution
from attention_svc.sequence.sequence import EmittedToken, Sequence

ROWS_AT_ONCE = 16
"""Rows whose logits exist at once: of a whole long prompt they would be gigabytes."""


@dataclass
class _Target:
    """A row of the step, and the prompt token after it."""

    sequence: Sequence
    row: int
    position: int


@dataclass
class PromptScorer:
    """The prompt tokens that a step scores. `score` on any thread, then `deliver` on the loop."""

    missing_ids: Tensor | None
    targets: list[_Target] = field(default_factory=list)
    scores: list[EmittedToken] = field(default_factory=list)

    @torch.inference_mode()
    def score(self, hidden_TD: Tensor, logits_of: Callable[[Tensor], Tensor]) -> None:
        """`logits_of`: the model's head, hidden rows to float32 logits."""
        for start in range(0, len(self.targets), ROWS_AT_ONCE):
            some = self.targets[start : start + ROWS_AT_ONCE]
            logits_RV = logits_of(hidden_TD[[target.row for target in some]])
            if self.missing_ids is not None:
                logits_RV.index_fill_(1, self.missing_ids, float("-inf"))
            tops = [target.sequence.params.top_logprobs for target in some]
            token_ids = [target.sequence.prompt_ids[target.position] for target in some]
            self.scores += RawDistribution(logits_RV, tops, copy=False).of(token_ids)

    def deliver(self) -> list[Sequence]:
        """Hand the scores to the sequences; returns the sequences with a NaN among theirs."""
        broken: dict[int, Sequence] = {}
        for target, score in zip(self.targets, self.scores, strict=True):
            if math.isnan(score.logprob):
                broken[id(target.sequence)] = target.sequence
            elif not target.sequence.finished:
                target.sequence.outbox.put_prompt(score)
                target.sequence.num_scored = target.position
        return list(broken.values())


def prompt_scorer(plan: list[Slice], missing_ids: Tensor | None) -> PromptScorer | None:
    """What there is to score in a step. Call before the sequences count its rows as computed."""
    if not any(part.sequence.params.prompt_logprobs for part in plan):
        return None
    scorer = PromptScorer(missing_ids)
    row = 0
    for part in row_order(plan):
        sequence = part.sequence
        if sequence.wants_every_row:
            # A token's row says how likely the next one was. After preemption no score is repeated.
            first = max(sequence.num_computed, sequence.num_scored)
            last = min(sequence.num_computed + part.num_tokens, len(sequence.prompt_ids) - 1)
            scorer.targets += [
                _Target(sequence, row + position - sequence.num_computed, position + 1)
                for position in range(first, last)
            ]
        row += part.num_tokens
    return scorer if scorer.targets else None
