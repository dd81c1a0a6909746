"""docs/faults.md names an existing test for every promised row, and each checks histories."""

import ast
import re
from functools import cache

import pytest

from tests.support.places import ROOT
from tests.support.syntax import parse

ROWS = {f"I{number}" for number in range(1, 13)}
ROWS |= {"J1", "J2", "J9", "K1", "K4", "L1", "L2", "L3", "M4"}
CHECKERS = {"check", "check_prefix"}  # tests/support/chaos/history.py, and Oracle.check

TEXT = (ROOT / "docs" / "faults.md").read_text()
LINES = re.findall(
    r"^\| ([A-Z]\d+(?:, [A-Z]\d+)*) \|.*`(tests/\S+\.py)::(\w+)` \|$", TEXT, re.MULTILINE
)
"""(rows, file, test)."""


def test_every_promised_row_has_a_test() -> None:
    assert {row for rows, _, _ in LINES for row in rows.split(", ")} >= ROWS


def test_no_line_of_the_table_is_overlooked() -> None:
    assert len(LINES) == TEXT.count(".py::")


Function = ast.FunctionDef | ast.AsyncFunctionDef


def names_in(node: ast.AST) -> set[str]:
    """Of variables, and of the methods and fields asked of them."""
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    return names | {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}


def asserts_a_verdict(function: Function) -> bool:
    """Whether it asserts `.right` of a verdict, or that another process found no problems."""
    judged = set(CHECKERS)
    for node in ast.walk(function):  # in the order of the lines, but for what is nested
        if isinstance(node, ast.Assign) and names_in(node.value) & judged:
            judged |= {one.id for one in node.targets if isinstance(one, ast.Name)}
    for node in ast.walk(function):
        if not isinstance(node, ast.Assert):
            continue
        test = node.test
        if isinstance(test, ast.Attribute) and test.attr == "right":
            if names_in(test.value) & judged:
                return True
        elif ast.unparse(test).endswith("['problems'] == []"):
            return True
    return False


@cache
def checking_functions(tree: ast.Module) -> frozenset[str]:
    """Those of a file, methods too, that assert a verdict, and those that it imports from tests."""
    functions = [node for node in ast.walk(tree) if isinstance(node, Function)]
    found = {node.name for node in functions if asserts_a_verdict(node)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
            path = ROOT / f"{(node.module or '').replace('.', '/')}.py"
            if path.exists():  # else a package, of which modules are taken
                names = {one.name for one in node.names}
                there = parse(path)
                methods = {
                    method.name
                    for one in there.body
                    if isinstance(one, ast.ClassDef) and one.name in names
                    for method in one.body
                    if isinstance(method, Function)
                }
                found |= checking_functions(there) & (names | methods)
    return frozenset(found)


def checks_histories(tree: ast.Module, test: str) -> bool:
    """By itself, or by a function or method that it calls."""
    checking = checking_functions(tree)
    (function,) = (one for one in tree.body if isinstance(one, Function) and one.name == test)
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    called = {one.id if isinstance(one, ast.Name) else getattr(one, "attr", "") for one in calls}
    return test in checking or bool(called & checking)


@pytest.mark.parametrize(("file", "test"), sorted({line[1:] for line in LINES}))
def test_a_named_test_exists_and_checks_histories(file: str, test: str) -> None:
    tree = parse(ROOT / file)
    assert test in {one.name for one in tree.body if isinstance(one, Function)}, (
        f"docs/faults.md names {test}, which {file} has not"
    )
    assert checks_histories(tree, test), f"{test} checks no history"


@pytest.mark.parametrize(
    ("body", "checks"),
    [
        ("verdict = rig.oracle.check(load.histories); assert verdict.right", True),
        ("verdict = check_prefix(one, tokens); assert verdict.right, verdict.problems", True),
        ("verdict = sum((check(one) for one in all), Verdict()); assert verdict.right", True),
        ("found = run_inside('mesh'); assert found['problems'] == []", True),
        ("assert_right(rig, load)", True),
        ("load.assert_right()", True),
        ("pass  # assert_right(rig, load), rig.oracle.check(load.histories)", False),
        ("'rig.oracle.check(load.histories)'", False),
        ("verdict = rig.oracle.check(load.histories)", False),
        ("rig.oracle.check(load.histories); assert rig.right", False),
        ("verdict = rig.ask(load); assert verdict.right", False),
        ("assert_nothing(rig, load)", False),
    ],
)
def test_only_an_assertion_about_a_verdict_counts(body: str, checks: bool) -> None:
    source = (
        f"def test_it(rig, load):\n    {body}\n"
        "def assert_right(rig, load):\n    v = rig.oracle.check(load)\n    assert v.right\n"
        "def assert_nothing(rig, load):\n    rig.oracle.check(load)\n"
    )
    assert checks_histories(ast.parse(source), "test_it") is checks
