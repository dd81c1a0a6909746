"""JSON lines, JSON arrays, Parquet and workbooks as tables."""

import builtins
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from expertmesh.assistants.tables import json_table, library_tables
from expertmesh.assistants.tables.kinds import Kind
from expertmesh.assistants.tables.profile import Profile, profile_file
from expertmesh.assistants.tables.sniff import TableError

ROWS: list[dict[str, Any]] = [
    {"city": "Oslo", "price": 1.5, "sold": True, "tags": ["a"], "when": "2024-01-31", "n": "12"},
    {"city": "Rome", "price": 2, "sold": False, "at": {"x": 1}, "when": None, "n": "13"},
]


def written(folder: Path, name: str, text: str) -> Profile:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return profile_file(path)


def check(found: Profile) -> None:
    kinds = {one.name: one.kind for one in found.columns}
    assert kinds == {
        "city": Kind.TEXT, "price": Kind.DECIMAL, "sold": Kind.BOOLEAN, "tags": Kind.LIST,
        "when": Kind.DATE, "n": Kind.TEXT, "at": Kind.OBJECT,
    }  # fmt: skip
    assert {one.name: one.missing for one in found.columns if one.missing} == {
        "tags": 1, "when": 1, "at": 1,
    }  # fmt: skip
    assert found.column("tags").examples == ('["a"]',)
    assert found.rows_read == 2


def test_json_lines(tmp_path: Path) -> None:
    text = "\n".join(map(json.dumps, ROWS))
    for name in ("x.jsonl", "x.ndjson", "x.json", "x"):
        found = written(tmp_path, name, text)
        check(found)
        assert found.facts.format == "JSON lines"


def test_a_json_array(tmp_path: Path) -> None:
    for text in (json.dumps(ROWS), json.dumps(ROWS, indent=2)):
        found = written(tmp_path, "x.json", text)
        check(found)
        assert found.facts.format == "JSON"


def test_an_object_that_holds_the_rows(tmp_path: Path) -> None:
    found = written(tmp_path, "x.json", json.dumps({"count": 2, "data": ROWS}))
    check(found)
    assert found.facts.rows_key == "data"
    with pytest.raises(TableError, match=r"several tables \(a, b\)"):
        written(tmp_path, "x.json", json.dumps({"a": ROWS, "b": ROWS}))


def test_bad_lines_are_counted_and_shown(tmp_path: Path) -> None:
    found = written(tmp_path, "x.jsonl", '{"a": 1}\n[1]\noops\n\n{"a": 2}\n')
    assert found.facts.notes == ["2 lines are no JSON objects, the first one line 2: [1]"]
    assert found.rows_read == 2
    with pytest.raises(TableError, match="no line is a JSON object: line 1: hello"):
        written(tmp_path, "x.jsonl", "hello\n")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "it is no JSON"),
        ("[1, 2]", "no array of objects"),
        ('"x"', "no array of objects"),
        ("[" * 100_000, "nested too deeply"),
        ('[{"a": ' + "[" * 100_000, "nested too deeply"),
    ],
)
def test_json_that_is_no_table_is_named(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(TableError, match=why):
        written(tmp_path, "x.json", text)


def test_an_array_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_table, "MOST_JSON_BYTES", 10)
    with pytest.raises(TableError, match="save it as JSON lines"):
        written(tmp_path, "x.json", json.dumps(ROWS))


def test_huge_numbers_do_no_harm(tmp_path: Path) -> None:
    found = written(tmp_path, "x.jsonl", f'{{"a": {"9" * 1000}, "b": 1e999, "c": NaN}}\n')
    assert [one.kind for one in found.columns] == [Kind.TEXT, Kind.TEXT, Kind.EMPTY]
    assert found.columns[0].examples == ("a number of over 60 digits",)


@pytest.mark.parametrize(("name", "library"), [("x.parquet", "pyarrow"), ("x.xlsx", "openpyxl")])
def test_a_missing_library_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, library: str
) -> None:
    real = builtins.__import__

    def without(module: str, *args: Any, **others: Any) -> Any:
        if module.partition(".")[0] == library:
            raise ImportError(module)
        return real(module, *args, **others)

    monkeypatch.setattr(builtins, "__import__", without)
    for known in [one for one in sys.modules if one.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, known)
    with pytest.raises(TableError, match=f"needs {library}: pip install {library}") as caught:
        written(tmp_path, name, "PAR1")
    assert "\n" not in str(caught.value)


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "x"
    parquet.write_table(pyarrow.table({"city": ["Oslo", None, "Rome"], "n": [1, 2, 3]}), path)
    found = profile_file(path)
    assert (found.num_rows, found.column("city").missing) == (3, 1)
    assert found.column("n").greatest == "3"
    monkeypatch.setattr(library_tables, "MOST_ROWS", 1)
    monkeypatch.setattr(library_tables, "rows_per_batch", lambda width: 1)
    found = profile_file(path)
    assert (found.num_rows, found.rows_read, found.num_rows_is_estimate) == (3, 1, False)
    assert "of 3 rows, the first 1 were read" in found.facts.notes
    path.write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(TableError, match="no Parquet file"):
        profile_file(path)


def test_a_workbook(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    path = tmp_path / "x.xlsx"
    book = openpyxl.Workbook()
    book.active.title = "sales"
    for row in (["city", "n"], ["Oslo", 1], [None, None], ["Rome", 2.5]):
        book.active.append(row)
    book.create_sheet("notes")
    book.save(path)
    found = profile_file(path)
    assert [one.kind for one in found.columns] == [Kind.TEXT, Kind.DECIMAL]
    assert found.rows_read == 2
    assert found.facts.sheet == "sales"
    assert found.facts.notes == ["only the first sheet was read; the others are notes"]


def test_a_workbook_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", b"0" * 2_000_000)
    monkeypatch.setattr(library_tables, "MOST_UNPACKED_BYTES", 1_000_000)
    with pytest.raises(TableError, match="unpacks to more than"):
        library_tables.refuse_bombs(path)
    path.write_bytes(b"nothing")
    with pytest.raises(TableError, match="no Excel workbook"):
        library_tables.refuse_bombs(path)
