"""What a model is shown of files and diffs, and which lines it can report."""

import difflib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from expertmesh.assistants.reviewing.passages import (
    Passage,
    fenced,
    of_diff,
    of_text,
    pieces,
    read_text,
)

LINES = st.lists(
    st.sampled_from(["", "x = 1", "-- y", "++ z", "+++ b/other", "@@ -1 +1 @@", "f()"])
)


@given(LINES, LINES)
@example([], [""])
@example(["-- y", "++ z"], ["++ z"])
def test_exactly_the_lines_that_a_diff_adds_can_be_reported(
    before: list[str], after: list[str]
) -> None:
    diff = list(difflib.unified_diff(before, after, "a/f.js", "b/f.js", lineterm="", n=2))
    added = {}
    matcher = difflib.SequenceMatcher(None, before, after)
    for tag, _, _, start, end in matcher.get_opcodes():
        if tag in ("insert", "replace"):
            added.update({number + 1: after[number] for number in range(start, end)})
    found = of_diff("\n".join(diff))
    assert {number: text for one in found for number, text in one.reportable.items()} == added
    assert all(one.file == "f.js" for one in found)


def test_a_diff_of_several_files_is_taken_apart() -> None:
    diff = (
        "diff --git a/a.js b/a.js\n--- a/a.js\n+++ b/a.js\n@@ -1,2 +1,2 @@\n-old\n+new\n same\n"
        "\\ No newline at end of file\n"
        "diff --git a/gone.js b/gone.js\n--- a/gone.js\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"
        "Binary files a/p.png and b/p.png differ\n"
        "--- /dev/null\n+++ b/sub/new file.js\t2026-11-30\n@@ -0,0 +1 @@\n+only\n"
    )
    first, second = of_diff(diff)
    assert (first.file, first.reportable) == ("a.js", {1: "new"})
    assert first.block() == "```javascript\n       -\told\n     1 +\tnew\n     2  \tsame\n```"
    assert first.is_diff
    assert (second.file, second.reportable) == ("sub/new file.js", {1: "only"})


@pytest.mark.parametrize("text", ["", "nothing of a diff", "--- a\n+++ b\n"])
def test_what_adds_no_line_has_nothing_to_report(text: str) -> None:
    assert of_diff(text) == []


def test_a_hunk_of_no_file_is_refused() -> None:
    with pytest.raises(ValueError, match="before the name of a file"):
        of_diff("@@ -1 +1 @@\n-a\n+b\n")


@given(st.lists(st.sampled_from(["", "def f():", "    x", "y" * 50])), st.integers(1, 300))
def test_pieces_hold_every_line_once_and_are_not_too_long(lines: list[str], most: int) -> None:
    whole = of_text("".join(f"{line}\n" for line in lines), "f.py")
    found = list(pieces(whole, most))
    assert tuple(row for one in found for row in one.rows) == whole.rows
    for one in found:
        assert len(one.rows) == 1 or sum(len(row.shown()) + 1 for row in one.rows) <= most + 1


def test_a_piece_ends_before_the_next_function() -> None:
    text = "def f():\n    return 1\n\n\ndef g():\n    return 2\n\n\ndef h():\n    return 3\n"
    found = list(pieces(of_text(text, "f.py"), 100))
    assert [one.place for one in found] == ["f.py:1-4", "f.py:5-10"]


def test_lines_have_their_numbers_and_cannot_end_the_fence() -> None:
    passage = of_text("```\na\r\nb", "x.txt")
    assert passage.block() == "````\n     1\t```\n     2\ta\n     3\tb\n````"
    assert passage.reportable == {1: "```", 2: "a", 3: "b"}
    assert fenced("", "python") == "```python\n\n```"


def test_a_very_long_line_is_shown_in_part() -> None:
    assert len(Passage("m.js", of_text("x" * 10_000, "m.js").rows).block()) < 2_200


def test_a_file_is_read_as_utf8_with_or_without_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_bytes("\ufeffx = '你'\n".encode())
    assert read_text(path) == "x = '你'\n"


@pytest.mark.parametrize(
    ("content", "says"), [(b"\xff\xfe", "not UTF-8 text"), (b"a\0b", "a binary file")]
)
def test_what_is_no_text_is_refused_in_a_line(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read_text(path)
    with pytest.raises(ValueError, match="No such file"):
        read_text(tmp_path / "absent")
    with pytest.raises(ValueError, match="Is a directory"):
        read_text(tmp_path)
