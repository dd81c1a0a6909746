"""Which wrong lines make a difference? Found by running each template and its mutants.

A pair (template, mutation) is held out by a hash of both, about one in eight.
"""

import random
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from demo_model.programs import running, values
from demo_model.programs.mutations import Mutation, of_lines
from demo_model.programs.templates import HELD_OUT_ONE_IN, POOLS, SLOT, Template, fill, load

TRIES = 40


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A template and one way in which it is wrong."""

    template: Template
    mutation: Mutation
    breaks: bool
    """Whether the module cannot be imported."""
    endless: bool
    """Whether some call never ends."""

    @property
    def held_out(self) -> bool:
        key = f"pair|{self.template.name}|{self.mutation.line}|{self.mutation.wrong.strip()}"
        return zlib.crc32(key.encode()) % HELD_OUT_ONE_IN == 0

    @property
    def lines(self) -> tuple[str, ...]:
        changed = list(self.template.lines)
        changed[self.mutation.line] = self.mutation.wrong
        return tuple(changed)


@cache
def pairs() -> tuple[Pair, ...]:
    """Every pair whose behaviour differs from the right one for some arguments."""
    return tuple(
        pair
        for template in load()
        for mutation in of_lines(template.lines)
        if set(SLOT.findall(mutation.wrong)) <= {"f", *template.slots}
        and (pair := _tried(template, mutation)) is not None
    )


class Pool:
    """Pairs to draw from, and parts of them, each made once."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self.pairs = tuple(pairs)
        self._by_kind = {
            kind: tuple(pair for pair in self.pairs if pair.mutation.kind == kind)
            for kind in sorted({pair.mutation.kind for pair in self.pairs})
        }
        self._weights = [len(found) ** 0.5 for found in self._by_kind.values()]
        self._parts: dict[str, Pool] = {}

    def pick(self, rng: random.Random) -> Pair:
        """A pair of a random kind: frequent kinds are drawn less often than there are of them."""
        kind = rng.choices(tuple(self._by_kind), self._weights)[0]
        return rng.choice(self._by_kind[kind])

    def part(self, name: str, belongs: Callable[[Pair], bool]) -> "Pool":
        """The pairs that belong to the part; `name` stands for `belongs`."""
        if name not in self._parts:
            self._parts[name] = Pool(pair for pair in self.pairs if belongs(pair))
        return self._parts[name]


@cache
def trained() -> Pool:
    """Pairs of trained templates that are not held out themselves."""
    return Pool(p for p in pairs() if not p.held_out and not p.template.held_out)


@cache
def held_out_pairs() -> Pool:
    """Held-out pairs of trained templates."""
    return Pool(p for p in pairs() if p.held_out and not p.template.held_out)


@cache
def pairs_of_held_out_templates() -> Pool:
    """All pairs of held-out templates."""
    return Pool(p for p in pairs() if p.template.held_out)


def default_names(template: Template) -> dict[str, str]:
    return {"f": template.functions[0], **{slot: slot for slot in POOLS}}


def _tried(template: Template, mutation: Mutation) -> Pair | None:
    names = default_names(template)
    right = running.define(fill("\n".join(template.lines), names), "m.py")[names["f"]]
    changed = list(template.lines)
    changed[mutation.line] = mutation.wrong
    try:
        wrong = running.define(fill("\n".join(changed), names), "m.py")[names["f"]]
    except SyntaxError:
        return Pair(template=template, mutation=mutation, breaks=True, endless=False)
    rng = random.Random(f"{template.name}-{mutation}")
    differs = endless = 0
    for _ in range(TRIES):
        arguments = values.draw(rng, template.arguments)
        expected, failed = running.call(right, arguments)
        if failed:
            continue
        got, raised = running.call(wrong, arguments)
        endless += raised is not None and isinstance(raised.error, running.EndlessError)
        differs += raised is not None or not accepts(expected, got)
    if differs < 3:
        return None
    return Pair(template=template, mutation=mutation, breaks=False, endless=endless > 0)


def accepts(expected: Any, value: Any) -> bool:
    """Whether a test for this value passes: of truth alone where truth is expected."""
    if expected is None:
        return value is None
    if isinstance(expected, bool):
        return bool(value) == expected
    return bool(value == expected)
