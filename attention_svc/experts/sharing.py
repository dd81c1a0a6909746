"""Which of a layer's chosen pools computes an expert that several of them hold?

Hot experts have more holders than others. The pools work at the same time, so the call takes as
long as the busiest one: the heaviest experts are given out first, each to the pool with least work
so far.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

Name = TypeVar("Name")


def share_out(
    shares: Mapping[Name, set[int]], held: Mapping[Name, set[int]], weight_E: Sequence[float]
) -> dict[Name, set[int]]:
    """The same experts on the same pools, each on one that holds it.

    Args:
        shares: experts by pool, none twice; the order of pools decides between equals.
        held: what each of these pools holds.
        weight_E: the work of each expert.
    """
    shared = {name: set(experts) for name, experts in shares.items()}
    choices: dict[int, list[Name]] = {}
    for experts in shares.values():
        for expert in experts:
            holders = [name for name in shares if expert in held[name]]
            if len(holders) > 1:
                choices[expert] = holders
    for experts in shared.values():
        experts.difference_update(choices)
    work = {name: sum(weight_E[expert] for expert in kept) for name, kept in shared.items()}
    for expert in sorted(choices, key=lambda expert: (-weight_E[expert], expert)):
        least = min(choices[expert], key=lambda name: work[name])
        shared[least].add(expert)
        work[least] += weight_E[expert]
    return shared
