"""Do tests that the model wrote pass on a toy function, and fail on wrong ones?

The tests are read, not run: only calls of that function with literal values count.
"""

import ast
from typing import Any

from demo_model.programs import catalogue, running
from demo_model.programs.project import Check
from demo_model.programs.templates import fill
from demo_model.tasks.write_tests import code_of

LEAST = 2


def checks_of(answer: str, module: str, function: str) -> list[Check] | None:
    """The asserts of the answer's code, or None if it has anything else than such tests."""
    code = code_of(answer)
    if code is None:
        return None
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError):
        return None
    found: list[Check] = []
    imported = False
    for node in body:
        if isinstance(node, ast.ImportFrom) and node.module == module:
            imported = any(name.name == function for name in node.names)
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            for statement in node.body:
                check = _check(statement, function)
                if check is None:
                    return None
                found.append(check)
        else:
            return None
    return found if imported else None


def _check(statement: ast.stmt, function: str) -> Check | None:
    if not isinstance(statement, ast.Assert):
        return None
    test = statement.test
    call: ast.expr = test
    expected: Any = True
    try:
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            call, expected = test.operand, False
        elif isinstance(test, ast.Compare) and len(test.ops) == 1:
            call, expected = test.left, ast.literal_eval(test.comparators[0])
            if not isinstance(test.ops[0], ast.Eq | ast.Is):
                return None
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            return None
        arguments = tuple(ast.literal_eval(each) for each in call.args)
    except ValueError:
        return None
    if call.func.id != function:
        return None
    return Check(function=function, arguments=arguments, expected=expected)


def are_right(answer: str, facts: dict[str, Any]) -> bool:
    """Whether all values are right, and some wrong variant of the function would be noticed."""
    names = facts["names"]
    checks = checks_of(answer, facts["module"], names["f"])
    if checks is None or len(checks) < LEAST:
        return False
    right = running.define(facts["source"], "right.py")[names["f"]]
    if not all(_passes(right, check) for check in checks):
        return False
    mutants = [
        p for p in catalogue.pairs() if p.template.name == facts["template"] and not p.breaks
    ]
    for pair in mutants:
        source = fill("\n".join(pair.lines), names)
        wrong = running.define(source, "wrong.py")[names["f"]]
        if not all(_passes(wrong, check) for check in checks):
            return True
    return False


def _passes(function: Any, check: Check) -> bool:
    value, raised = running.call(function, check.arguments)
    return raised is None and check.accepts(value)
