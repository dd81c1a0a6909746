"""How many rows of a step does each running sequence get? No state.

A sequence with one pending token, as in decode, gets its row. The rows left are shared equally
between the clients with prompts. Half of a client's share is reserved for its oldest prompt; the
rest goes to its other prompts, shortest first. So a long prompt cannot hold up a later short one,
nor can any number of short ones hold up a long one: at least max_batch_tokens - max_running + 1
rows are left, and a client's oldest prompt takes at most
2 * pending * (clients with prompts) / (rows left) steps.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Rows
from typing import NamedTuple

from attention_svc.sequence.sequence import Sequence
from rpc.fair_shares import equal_shares


class Slice(NamedTuple):  # which takes a third of a frozen dataclass's time to make
    """Some tokens of a sequence, from its first pending one on."""

    sequence: Sequence
    num_tokens: int
    picked_row: int | None = None
    """Its token is the one that the last step, still under way, picks in this row."""

    @property
    def completes(self) -> bool:
        """Whether the step computes the last known token: its logits choose the next one."""
        return self.num_tokens == self.sequence.num_pending


def share_rows(running: Rows[Sequence], num_rows: int, urgency: Mapping[int, int]) -> list[Slice]:
    """A step of at most `num_rows`, at least one for each running sequence.

    A sequence that waits for its grammar takes no part.

    Args:
        urgency: by arrival, the tokens of the shortest sequence that waits for this one to compute
            their common prefix: a prompt counts as no longer than that.
    """
    plan: list[Slice] = []
    long: list[Sequence] = []
    for sequence in running:
        pending = sequence.num_pending
        if not pending or sequence.is_ending:  # it awaits its grammar
            continue
        if pending > 1:
            long.append(sequence)
        else:
            plan.append(Slice(sequence, 1))
    if not long:
        return plan
    prompts: dict[str, list[Sequence]] = {}
    for sequence in sorted(long, key=lambda s: s.arrival):
        prompts.setdefault(sequence.client_id, []).append(sequence)
    wanted = {client: sum(s.num_pending for s in own) for client, own in prompts.items()}
    shares = equal_shares(wanted, num_rows - len(plan))
    for client, own in prompts.items():
        plan += _within(own, shares[client], urgency)
    return plan


def _within(prompts: list[Sequence], num_rows: int, urgency: Mapping[int, int]) -> list[Slice]:
    """One client's rows; its prompts in order of arrival."""
    oldest, *others = prompts
    for_others = num_rows - min(oldest.num_pending, (num_rows + 1) // 2)
    chunks: list[Slice] = []
    for sequence in sorted(
        others, key=lambda s: (min(s.num_pending, urgency.get(s.arrival, s.num_pending)), s.arrival)
    ):
        if not for_others:
            break
        num_tokens = min(sequence.num_pending, for_others)
        chunks.append(Slice(sequence, num_tokens))
        for_others -= num_tokens
        num_rows -= num_tokens
    return [Slice(oldest, min(oldest.num_pending, num_rows)), *chunks] if num_rows else chunks
