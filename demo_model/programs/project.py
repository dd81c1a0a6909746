"""How is a toy project made: a module with one wrong line, and the tests that show it?"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from demo_model.programs import catalogue, naming, running, templates, values
from demo_model.programs.catalogue import Pair
from demo_model.programs.templates import Template, fill

Made = TypeVar("Made")

TEST_ENDINGS = ("", "_2", "_again", "_more", "_other", "_b")
MAX_TRIES = 100
MOST_DRAWS = 1000
"""Of one example."""
LONGEST_VALUE = 30
"""Characters: pytest shortens longer ones."""


class RedrawError(Exception):
    """This draw cannot be shown as it would be in reality; draw another."""


def redrawn(make: Callable[[], Made]) -> Made:
    """What the first draw gives that can be shown. Raises RuntimeError if MOST_DRAWS cannot."""
    for _ in range(MOST_DRAWS):
        try:
            return make()
        except RedrawError:
            continue
    raise RuntimeError(f"none of {MOST_DRAWS} draws can be shown")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One assert: a call and its right value."""

    function: str
    arguments: tuple[Any, ...]
    expected: Any

    @property
    def call(self) -> str:
        return f"{self.function}({', '.join(map(literal, self.arguments))})"

    @property
    def statement(self) -> str:
        if self.expected is None:
            return f"assert {self.call} is None"
        if isinstance(self.expected, bool):
            return f"assert {'' if self.expected else 'not '}{self.call}"
        return f"assert {self.call} == {literal(self.expected)}"

    def accepts(self, value: Any) -> bool:
        """Whether the assert holds for this value of the call."""
        return catalogue.accepts(self.expected, value)


@dataclass(frozen=True, kw_only=True)
class Test:
    """One test function."""

    name: str
    checks: tuple[Check, ...]


@dataclass(frozen=True, kw_only=True)
class Bug:
    """A wrong line of a module, and what it must be."""

    pair: Pair
    function: str
    line: int
    """From 1, in the module."""
    right: str
    wrong: str
    """Both with their indentation."""


@dataclass(frozen=True, kw_only=True)
class Project:
    """A module, right and wrong, and its tests."""

    module: str
    """Without .py"""
    right: str
    source: str
    """As it is, with the bugs"""
    bugs: tuple[Bug, ...]
    tests: tuple[Test, ...]
    functions: tuple[str, ...]

    @property
    def file(self) -> str:
        return f"{self.module}.py"

    @property
    def test_file(self) -> str:
        return f"test_{self.module}.py"

    @property
    def test_source(self) -> str:
        names = ", ".join(sorted(self.functions))
        parts = [f"from {self.module} import {names}\n"]
        for test in self.tests:
            body = "".join(f"    {check.statement}\n" for check in test.checks)
            parts.append(f"\n\ndef {test.name}():\n{body}")
        return "".join(parts)

    def mended(self, bug: Bug) -> "Project":
        """The project without this bug."""
        lines = self.source.split("\n")
        lines[bug.line - 1] = bug.right
        left = tuple(other for other in self.bugs if other is not bug)
        return replace(self, source="\n".join(lines), bugs=left)


def literal(value: Any) -> str:
    """The value as Python source with double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()) + "}"
    return repr(value)


def make(
    rng: random.Random,
    pairs: tuple[Pair, ...],
    *,
    held_out_names: bool,
    others: int,
    documented: bool,
) -> Project:
    """A project with one bug of each of `pairs` and up to `others` further right functions."""
    chosen = [pair.template for pair in pairs]
    pool = [t for t in templates.trained() if t not in chosen]
    chosen += rng.sample(pool, others)
    rng.shuffle(chosen)
    by_template = {pair.template.name: pair for pair in pairs}
    taken: set[str] = set()
    right: list[str] = []
    wrong: list[str] = []
    bugs, tests, functions = [], [], []
    for template in chosen:
        if right:
            right += ["", ""]
            wrong += ["", ""]
        names = naming.names_for(rng, template, held_out=held_out_names, taken=taken)
        taken.add(names["f"])
        functions.append(names["f"])
        good = with_doc([fill(line, names) for line in template.lines], template, names, documented)
        bad = list(good)
        pair = by_template.get(template.name)
        if pair:
            index = pair.mutation.line + (documented and pair.mutation.line > 0)
            bad[index] = fill(pair.mutation.wrong, names)
            bugs.append(
                Bug(
                    pair=pair,
                    function=names["f"],
                    line=len(right) + index + 1,
                    right=good[index],
                    wrong=bad[index],
                )
            )
        tests += tests_of(rng, template, names["f"], good, None if not pair else bad, pair)
        right += good
        wrong += bad
    return Project(
        module=naming.pick(rng, naming.MODULES, held_out=held_out_names),
        right="\n".join(right) + "\n",
        source="\n".join(wrong) + "\n",
        bugs=tuple(bugs),
        tests=tuple(tests),
        functions=tuple(functions),
    )


def with_doc(
    lines: list[str], template: Template, names: dict[str, str], documented: bool
) -> list[str]:
    if not documented:
        return lines
    return [lines[0], f'    """{fill(template.doc, names)}"""', *lines[1:]]


def tests_of(
    rng: random.Random,
    template: Template,
    function: str,
    good: list[str],
    bad: list[str] | None,
    pair: Pair | None,
) -> list[Test]:
    """One or two tests of right values, of which the wrong function fails at least one check."""
    right = running.define("\n".join(good), "right.py")[function]
    wrong = None
    if bad and pair and not pair.breaks:
        wrong = running.define("\n".join(bad), "wrong.py")[function]
    count = rng.choice((1, 1, 2))
    for _ in range(MAX_TRIES):
        tests = []
        for ending in rng.sample(TEST_ENDINGS[1:], count - 1) if count > 1 else []:
            tests.append(Test(name=f"test_{function}{ending}", checks=()))
        tests.insert(0, Test(name=f"test_{function}", checks=()))
        tests = [
            replace(
                test, checks=checks_of(rng, template, function, right, rng.choice((1, 2, 2, 3)))
            )
            for test in tests
        ]
        if wrong is None or any(fails(wrong, check) for test in tests for check in test.checks):
            return tests
    raise RedrawError


def checks_of(
    rng: random.Random, template: Template, function: str, right: Any, count: int
) -> tuple[Check, ...]:
    """Different calls with their right values, short enough to be shown whole."""
    checks: list[Check] = []
    for _ in range(60):
        arguments = values.draw(rng, template.arguments)
        expected, raised = running.call(right, arguments)
        short = len(repr(expected)) <= LONGEST_VALUE and len(repr(arguments)) < 60
        new = all(check.arguments != arguments for check in checks)
        if raised is None and short and new:
            checks.append(Check(function=function, arguments=arguments, expected=expected))
        if len(checks) == count:
            break
    return tuple(checks)


def fails(function: Any, check: Check) -> bool:
    value, raised = running.call(function, check.arguments)
    return raised is not None or not check.accepts(value)
