"""Small mistakes in functions: each is one, each parses, and the module is not touched."""

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.assistants.testing import mutants as module
from expertmesh.assistants.testing.mutants import mutants

CODE = '''
import math
LIMIT = 3

@cached(4)
def clamp(value: int = 5, low: "str" = 1) -> int:
    """Keep it above 7."""
    "not code either"
    width: list[8] = []
    if value < low and value != 0:
        return low
    return -value + 2


class Box:
    size = 1

    def grow(self, by):
        self.size += by
        return f"size {self.size + 1:>9}"
'''


def found(code: str, *names: str, most: int = 1000) -> dict[str, tuple[str, str]]:
    return {one.text(): (one.kind, one.source) for one in mutants(code, names, most)}


def test_each_kind_of_mistake_is_made() -> None:
    assert set(found(CODE)) == {
        "line 6: `clamp` became `return None`",
        "line 10: `value < low and value != 0` became `value < low or value != 0`",
        "line 10: `value < low` became `value <= low`",
        "line 10: `value != 0` became `value == 0`",
        "line 10: `0` became `1`",
        "line 11: `return low` became `return None`",
        "line 12: `return -value + 2` became `return None`",
        "line 12: `-value + 2` became `-value - 2`",
        "line 12: `-value` became `--value`",
        "line 12: `2` became `3`",
        "line 18: `grow` became `return None`",
        "line 19: `self.size += by` became `self.size -= by`",
        "line 20: `return f'size {self.size + 1:>9}'` became `return None`",
        "line 20: `self.size + 1` became `self.size - 1`",
        "line 20: `1` became `2`",
    } | {one for one in found(CODE) if one.startswith("line 10: `if") and "`if not (" in one}
    assert sum("`if not (" in one for one in found(CODE)) == 1


def test_a_mutant_differs_in_its_mistake_alone() -> None:
    right = ast.unparse(ast.parse(CODE)).splitlines()
    for _, source in found(CODE).values():
        wrong = source.splitlines()
        changed = {*right} ^ {*wrong}
        assert len(changed) in (1, 2), changed


def test_only_the_functions_asked_for_are_changed() -> None:
    assert {one[:8] for one in found(CODE, "Box.grow")} == {"line 18:", "line 19:", "line 20:"}
    with pytest.raises(ValueError, match="there is no shrink; there are clamp, Box"):
        mutants(CODE, ("shrink",))
    with pytest.raises(SyntaxError):
        mutants("def f(:")


def test_few_mutants_are_of_many_kinds_and_always_the_same() -> None:
    few = found(CODE, most=5)
    assert len(few) == 5
    assert len({kind for kind, _ in few.values()}) == 5
    assert few == found(CODE, most=5)


@pytest.mark.parametrize("body", ["return None", "pass", '"""Says 1 + 1."""'])
def test_a_function_that_does_nothing_has_no_mutant(body: str) -> None:
    assert found(f"def f():\n    {body}\n") == {}
    assert found("x = 1 < 2\n") == {}


OWN = sorted(Path(module.__file__).parent.glob("*.py"))


@given(st.sampled_from(OWN), st.integers(1, 6))
def test_mutants_of_any_module_parse(path: Path, most: int) -> None:
    source = path.read_text()
    whole = ast.unparse(ast.parse(source))
    for one in mutants(source, most=most):
        ast.parse(one.source)
        assert one.source != whole
