"""docs/security.md names tests that exist, and no row goes without one."""

import ast
import re

import pytest

from tests.support.places import ROOT
from tests.support.syntax import nodes

TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
HOLDS = TEXT.partition("## What holds\n")[2].partition("\n## ")[0]
ROWS = [line for line in HOLDS.splitlines() if line.startswith("| ")][2:]
NAMED = re.compile(r"\| `(tests/\S+\.py)::(test_\w+)` \|$")


def test_every_promise_names_one_test() -> None:
    assert len(ROWS) > 25
    assert [row for row in ROWS if not NAMED.search(row)] == []
    assert len(ROWS) == TEXT.count(".py::")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_the_test_that_a_promise_names_is_there(row: str) -> None:
    found = NAMED.search(row)
    assert found is not None
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = {node.name for node in nodes(ROOT / found[1]) if isinstance(node, functions)}
    assert found[2] in names
