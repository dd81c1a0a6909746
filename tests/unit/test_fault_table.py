"""docs/faults.md names tests that exist, for every row that is promised, with the history checker in them."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = {*(f"I{number}" for number in range(1, 13)), "J1", "J2", "J9", "K1", "K4", "L1", "L2", "L3", "M4"}  # fmt: skip
CHECKER = re.compile(r"oracle\.check|\bcheck(_prefix)?\(|assert_right|cancel_storm|\"problems\"")
"""What a test calls that has the histories checked; "problems": what such a check in another process found."""


TEXT = (ROOT / "docs" / "faults.md").read_text()
LINES = re.findall(
    r"^\| ([A-Z]\d+(?:, [A-Z]\d+)*) \|.*`(tests/\S+\.py)::(\w+)` \|$", TEXT, re.MULTILINE
)
"""(rows, file, test)."""


def test_every_promised_row_has_a_test() -> None:
    assert {row for rows, _, _ in LINES for row in rows.split(", ")} >= ROWS


def test_no_line_of_the_table_is_overlooked() -> None:
    assert len(LINES) == TEXT.count(".py::")


@pytest.mark.parametrize(("file", "test"), sorted({line[1:] for line in LINES}))
def test_a_named_test_exists_and_checks_histories(file: str, test: str) -> None:
    source = (ROOT / file).read_text()
    functions = {
        node.name: ast.get_source_segment(source, node) or ""
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert test in functions, f"docs/faults.md names {test}, which {file} has not"
    assert CHECKER.search(functions[test]), f"{test} checks no history"
