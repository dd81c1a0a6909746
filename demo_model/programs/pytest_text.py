"""What does `pytest -q` print for a toy project? Written here without starting pytest.

Millions of runs are needed while training. Tests compare this with the real pytest's output.
"""

import difflib
import pprint
import random
import traceback
from dataclasses import dataclass
from typing import Any

from demo_model.programs import running
from demo_model.programs.project import Check, Project, RedrawError, Test
from demo_model.programs.running import Raised

WIDTH = 80
MOST_EXPLAINED = 8
"""Lines of an explanation, from which on pytest cuts it."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A test that failed, and at which check."""

    test: Test
    index: int
    check: Check
    value: Any
    raised: Raised | None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A run of all tests."""

    text: str
    exit_code: int
    failures: tuple[Failure, ...]
    endless: bool = False
    """A test never ended, so there is no text."""
    broken: bool = False
    """The module could not be imported."""

    @property
    def passed(self) -> bool:
        return self.exit_code == 0


def run(
    project: Project, rng: random.Random, folder: str = "/work", *, short: bool = False
) -> Outcome:
    """The outcome of `pytest -q` in the project's folder.

    `short`: with the flags of `expertmesh dev tests`, `--no-header --tb=short -rfEp`; only for
    modules that can be imported and checks that raise nothing.
    """
    seconds = f"{rng.choice((0.01, 0.01, 0.02, 0.02, 0.03, 0.04, 0.05, 0.08, 0.12)):.2f}s"
    try:
        names = running.define(project.source, project.file)
    except SyntaxError as error:
        text = _broken(project, error, seconds, folder)
        return Outcome(text=text, exit_code=2, failures=(), broken=True)
    failures = []
    for test in project.tests:
        for index, check in enumerate(test.checks):
            value, raised = running.call(names[check.function], check.arguments)
            if raised and isinstance(raised.error, running.EndlessError):
                return Outcome(text="", exit_code=124, failures=(), endless=True)
            if raised or not check.accepts(value):
                failures.append(
                    Failure(test=test, index=index, check=check, value=value, raised=raised)
                )
                break
    return Outcome(
        text=_report(project, failures, seconds, short=short),
        exit_code=int(bool(failures)),
        failures=tuple(failures),
    )


def rule(title: str, mark: str) -> str:
    """A line of marks with the title in its middle."""
    side = mark * max((WIDTH - len(title) - 2) // 2, 1)
    line = f"{side} {title} {side}"
    return line + mark if len(line) + 1 <= WIDTH else line


def _report(project: Project, failures: list[Failure], seconds: str, *, short: bool) -> str:
    failed = {failure.test.name for failure in failures}
    marks = "".join("F" if test.name in failed else "." for test in project.tests)
    lines = [marks + "[100%]".rjust(WIDTH - 1 - len(marks))]
    if failures:
        lines.append(rule("FAILURES", "="))
    summary = []
    for failure in failures:
        lines.append(rule(failure.test.name, "_"))
        if short:
            body, message = _short_failure(project, failure)
            lines += body
        else:
            body, message = _failure(project, failure)
            lines += ["", *body]
        line = f"FAILED {project.test_file}::{failure.test.name}"
        room = WIDTH - len(line)
        shown = f" - {message}"
        if len(shown) > room:
            shown = shown[: room - 3] + "..."
        summary.append(line + shown)
    if short:
        names = [test.name for test in project.tests if test.name not in failed]
        summary += [f"PASSED {project.test_file}::{name}" for name in names]
    if summary:
        lines += [rule("short test summary info", "="), *summary]
    passed = len(project.tests) - len(failures)
    counts = [f"{len(failures)} failed"] * bool(failures) + [f"{passed} passed"] * bool(passed)
    return "\n".join([*lines, f"{', '.join(counts)} in {seconds}"]) + "\n"


def _failure(project: Project, failure: Failure) -> tuple[list[str], str]:
    """(the lines of one failure, its message in the summary)."""
    test_lines = project.test_source.split("\n")
    start = test_lines.index(f"def {failure.test.name}():")
    line = start + 1 + failure.index
    shown = [f"    {text}" for text in test_lines[start:line]] + [f">   {test_lines[line]}"]
    if failure.raised is None:
        first, *rest = _asserted(failure)
        shown += [f"E       {first}"] + [f"E       {text}" for text in rest]
        return [*shown, "", f"{project.test_file}:{line + 1}: AssertionError"], first
    return _raised(project, failure, shown, line)


def _short_failure(project: Project, failure: Failure) -> tuple[list[str], str]:
    """The same with `--tb=short`."""
    if failure.raised is not None:
        raise RedrawError
    start = project.test_source.split("\n").index(f"def {failure.test.name}():")
    message = _asserted(failure)
    place = f"{project.test_file}:{start + 2 + failure.index}: in {failure.test.name}"
    told = [place, f"    {failure.check.statement}", *(f"E   {line}" for line in message)]
    return told, message[0]


def _asserted(failure: Failure) -> list[str]:
    """The lines of an assert's message."""
    message = f"assert {explanation(failure.check, failure.value)}"
    if not repr(AssertionError(message)).startswith("AssertionError('assert "):
        message = f"AssertionError: {message}"
    return message.split("\n")


def _raised(
    project: Project, failure: Failure, shown: list[str], line: int
) -> tuple[list[str], str]:
    assert failure.raised is not None
    error = failure.raised.error
    message = "".join(traceback.format_exception_only(type(error), error)).rstrip("\n")
    if "\n" in message:
        raise RedrawError
    call = failure.check.statement.index(failure.check.call)
    whole = failure.check.statement
    if len(failure.check.call) < len(whole):
        shown.append(" " * (8 + call) + "^" * len(failure.check.call))
    shown += ["", f"{project.test_file}:{line + 1}: "]
    source = project.source.split("\n")
    for number, place in enumerate(failure.raised.places):
        if place.function.startswith("<") or place.file != project.file or number > 0:
            raise RedrawError
        top = max(i for i in range(place.line) if source[i].startswith("def "))
        shown += ["_ " * 40, ""]
        arguments = ", ".join(f"{name} = {value}" for name, value in place.arguments)
        if len(arguments) >= WIDTH:
            raise RedrawError  # pytest breaks the line
        shown.append(arguments)
        shown += [""] + [f"    {text}" if text else "" for text in source[top : place.line - 1]]
        text = source[place.line - 1]
        shown.append(f">   {text}")
        if place.columns and 0 < place.columns[1] - place.columns[0] < len(text.strip()):
            low, high = place.columns
            shown.append("    " + " " * low + "^" * (high - low))
        indent = 4 + len(text) - len(text.lstrip())
        shown.append("E" + " " * (indent - 1) + message)
        shown += ["", f"{place.file}:{place.line}: {type(error).__name__}"]
    return shown, message


def explanation(check: Check, value: Any) -> str:
    """What pytest writes behind "assert" for a check that failed with this value."""
    where = f"\n +  where {value!r} = {check.function}({', '.join(map(repr, check.arguments))})"
    expected = check.expected
    if expected is None:
        return f"{value!r} is None{where}"
    if isinstance(expected, bool):
        return f"{'' if expected else 'not '}{value!r}{where}"
    details = _details(value, expected)
    if not details:
        return f"{value!r} == {expected!r}{where}"
    if max(len(repr(value)), len(repr(expected))) > 30 or len(details) > MOST_EXPLAINED - 2:
        raise RedrawError
    return "\n  ".join([f"{value!r} == {expected!r}", "", *details])


def _details(left: Any, right: Any) -> list[str]:
    if isinstance(left, str) and isinstance(right, str):
        if left.isspace() or right.isspace():
            raise RedrawError
        different = difflib.ndiff(right.splitlines(True), left.splitlines(True))
        return [line.strip("\n") for line in different]
    if isinstance(left, str | int | float) or isinstance(right, str | int | float) or left is None:
        return []
    lines: list[str] = []
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        lines = _sequence(left, right)
    elif isinstance(left, dict) and isinstance(right, dict):
        lines = _tables(left, right)
    return [*lines, "Use -v to get more diff"]


def _sequence(left: Any, right: Any) -> list[str]:
    lines = []
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            lines.append(f"At index {index} diff: {one!r} != {other!r}")
            break
    more = len(left) - len(right)
    if more:
        side, extra = ("Left", left[len(right)]) if more > 0 else ("Right", right[len(left)])
        count = "one more item" if abs(more) == 1 else f"{abs(more)} more items, first extra item"
        lines.append(f"{side} contains {count}: {extra!r}")
    return lines


def _tables(left: dict[Any, Any], right: dict[Any, Any]) -> list[str]:
    lines = []
    both = [key for key in left if key in right]
    same = [key for key in both if left[key] == right[key]]
    if same:
        lines.append(f"Omitting {len(same)} identical items, use -vv to show")
    if len(same) < len(both):
        lines.append("Differing items:")
        different = [key for key in both if key not in same]
        if len(different) > 1:
            raise RedrawError  # pytest's order is that of a set
        lines += [f"{ {key: left[key]}!r} != { {key: right[key]}!r}" for key in different]
    for side, one, other in (("Left", left, right), ("Right", right, left)):
        extra = {key: one[key] for key in one if key not in other}
        if extra:
            items = "item" if len(extra) == 1 else "items"
            lines.append(f"{side} contains {len(extra)} more {items}:")
            lines += pprint.pformat(extra).splitlines()
    return lines


def _broken(project: Project, error: SyntaxError, seconds: str, folder: str) -> str:
    """What is printed when the module cannot be imported; pytest's own frames left out."""
    error.filename = f"{folder}/{project.file}"
    told = "".join(traceback.format_exception_only(type(error), error)).rstrip("\n")
    lines = [
        "",
        rule("ERRORS", "="),
        rule(f"ERROR collecting {project.test_file}", "_"),
        f"{project.test_file}:1: in <module>",
        f"    {project.test_source.splitlines()[0]}",
        *(f"E   {line}" for line in told.split("\n")),
        rule("short test summary info", "="),
        f"ERROR {project.test_file}",
        rule("Interrupted: 1 error during collection", "!"),
        f"1 error in {seconds}",
    ]
    return "\n".join(lines) + "\n"
