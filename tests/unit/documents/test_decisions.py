"""docs/decisions.md is a numbered list without gaps, and each entry says what holds it."""

import re

from tests.support.places import ROOT

TEXT = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
ENTRIES = re.findall(r"^\*\*.*?(?=^\*\*|\Z)", TEXT, re.MULTILINE | re.DOTALL)


def test_decisions_are_numbered_in_order_and_none_is_without_a_number() -> None:
    numbers = [re.match(r"\*\*(\d+)\. \S", entry) for entry in ENTRIES]
    assert all(numbers), [entry[:60] for entry, n in zip(ENTRIES, numbers, strict=True) if not n]
    assert [int(n[1]) for n in numbers if n] == list(range(1, len(ENTRIES) + 1))
    assert len(ENTRIES) > 40


def test_every_decision_says_what_holds_it() -> None:
    assert [entry[:60] for entry in ENTRIES if not re.search(r"Held\s+by", entry)] == []


def test_a_reference_to_a_decision_is_to_one_that_exists() -> None:
    for path in ROOT.rglob("*.py"):
        if not any(part.startswith(".") for part in path.relative_to(ROOT).parts):
            for number in re.findall(r"decision (\d+)", path.read_text(encoding="utf-8")):
                assert 1 <= int(number) <= len(ENTRIES), path
