"""The lines of code that a failed command speaks of."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertmesh.assistants.error_places import code_around, places_in

OUTPUT = """\
Traceback (most recent call last):
  File "/usr/lib/python3/runpy.py", line 9, in <module>
  File "{folder}/a.py", line 20, in <module>
    f()
test_a.py:3: AssertionError
lib.c:12:7: error: expected ';'
../out.txt:1: Error
"""


def test_places_are_found_in_their_order() -> None:
    assert places_in(OUTPUT) == [
        ("/usr/lib/python3/runpy.py", 9),
        ("{folder}/a.py", 20),
        ("test_a.py", 3),
        ("lib.c", 12),
        ("../out.txt", 1),
    ]


@given(st.text())
def test_any_output_has_places_or_none(text: str) -> None:
    assert all(line >= 0 for _, line in places_in(text))


def test_only_code_of_the_folder_is_shown(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "out.txt").write_text("secret\n")
    (work / "a.py").write_text("".join(f"line {n}\n" for n in range(1, 101)))
    (work / "test_a.py").write_text("a\nb\nc\n")
    (work / "lib.c").symlink_to(tmp_path / "out.txt")
    first, second = code_around(OUTPUT.format(folder=work), work)
    assert (first.file, min(first.reportable), max(first.reportable)) == (f"{work}/a.py", 5, 35)
    assert (second.file, second.reportable) == ("test_a.py", {1: "a", 2: "b", 3: "c"})


@pytest.mark.parametrize("content", [b"\xff\xff", b"one line\n"])
def test_lines_that_cannot_be_shown_are_left_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.py").write_bytes(content)
    assert code_around("a.py:99: Error\na.py: x", tmp_path) == []
