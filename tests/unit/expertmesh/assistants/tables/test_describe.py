"""A profile in words: whole, short, and with the data marked off by quotation marks."""

from pathlib import Path

import pytest

from expertmesh.assistants.tables.cells import quoted
from expertmesh.assistants.tables.describe import describe, size_text, summary
from expertmesh.assistants.tables.profile import Profile, profile_file

TEXT = "city;price\nOslo;1.5\nOslo;2\nRome;\n"


@pytest.fixture
def sales(tmp_path: Path) -> Profile:
    path = tmp_path / "sales.csv"
    path.write_text(TEXT)
    return profile_file(path)


def test_in_english(sales: Profile) -> None:
    assert describe(sales).splitlines() == [
        '"sales.csv": CSV, 3 rows, 2 columns, 33 bytes, encoding utf-8, delimiter ";"',
        "Columns:",
        '- "city": text; 2 different; most common "Oslo" (2), "Rome" (1)',
        '- "price": decimal; 1 missing; 2 different; from 1.5 to 2; mean 1.75; such as "1.5", "2"',
        "First rows:",
        '"Oslo" | "1.5"',
        '"Oslo" | "2"',
        '"Rome" | ""',
    ]


def test_in_chinese(sales: Profile) -> None:
    lines = describe(sales, "zh").splitlines()
    assert lines[0].startswith('"sales.csv"\uff1aCSV\uff0c3\u884c\uff0c2\u5217')
    assert lines[3].startswith('- "price": \u5c0f\u6570; \u7f3a\u59311\u4e2a')


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_sentence_has_its_words(tmp_path: Path, language: str) -> None:
    """A table in which everything occurs that can be told of one."""
    path = tmp_path / "x.csv"
    odd = "\n".join(f"{number},{'a' * 70},{number}.5" for number in range(30))
    path.write_text(f"many,long,mixed\n{odd}\n1,b,c\n2,b,2024-01-01\n3,x,4\n4\n")
    text = describe(profile_file(path), language)
    assert ("cells of another kind" in text) == (language == "en")
    numbered = tmp_path / "y.csv"
    numbered.write_text("1,a\n2,3\n" + "4,5\n" * 20)
    assert "{" not in text + describe(profile_file(numbered), language)


def test_it_is_short_and_counts_what_it_leaves_out(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    names = [f"column {'x' * 60} {number}" for number in range(400)]
    path.write_text(",".join(names) + "\n" + ",".join(["some text"] * 400) + "\n")
    text = describe(profile_file(path), most_chars=3_000)
    assert len(text) < 3_300
    described = sum(line.startswith('- "column') for line in text.splitlines())
    assert f"and {400 - described} more columns, not described" in text


def test_a_cell_cannot_leave_its_quotation_marks() -> None:
    assert quoted('a"\n"b\\') == '"a\\"\\\\n\\"b\\\\"'


def test_an_estimate_is_called_one(sales: Profile) -> None:
    sales.facts.share_read = 0.5
    assert "about 6 rows" in summary(sales)


@pytest.mark.parametrize(
    ("size", "text"),
    [(999, "999 bytes"), (1_500, "1.5 kB"), (34_000_000, "34.0 MB"), (2e9, "2.0 GB")],
)
def test_sizes_have_a_unit(size: float, text: str) -> None:
    assert size_text(int(size)) == text
