"""The statements that a script is given read the file: each is run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from expertmesh.assistants.tables.profile import profile_file
from expertmesh.assistants.tables.reading import reading

ROWS = [{"city": "M\u00fcnchen", "n": 1}, {"city": "Rome", "n": 2}]
FILES: list[tuple[str, bytes]] = [
    ("x.csv", "city,n\nM\u00fcnchen,1\nRome,2\n".encode()),
    ("x.csv", "city;n\nM\u00fcnchen;1\nRome;2\n".encode("cp1252")),
    ("x.tsv", "city\tn\nM\u00fcnchen\t1\nRome\t2\n".encode("utf-16")),
    ("x.csv", "\ufeffcity,n\nM\u00fcnchen,1\nRome,2\n".encode()),
    ("x.jsonl", "\n".join(json.dumps(one, ensure_ascii=False) for one in ROWS).encode()),
    ("x.json", json.dumps(ROWS).encode()),
    ("x.json", json.dumps({"data": ROWS}).encode()),
]


@pytest.mark.parametrize(("name", "data"), FILES)
@pytest.mark.parametrize("has_pandas", [False, True])
def test_it_reads_what_was_profiled(
    tmp_path: Path, name: str, data: bytes, has_pandas: bool
) -> None:
    if has_pandas:
        pytest.importorskip("pandas")
    path = tmp_path / name
    path.write_bytes(data)
    statements = reading(profile_file(path).facts, name, has_pandas)
    rows = "df.to_dict('records')" if "df =" in statements else "rows"
    script = f"{statements}\nprint(ascii([(one['city'], int(one['n'])) for one in {rows}]))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[('M\\xfcnchen', 1), ('Rome', 2)]\n", done.stderr


def test_a_file_without_names_is_read_by_position(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("1,2\n3,4\n")
    facts = profile_file(path).facts
    assert reading(facts, "x.csv", False).startswith("import csv\nrows = list(csv.reader(")
    assert reading(facts, "x.csv", True).endswith("pd.read_csv('x.csv', header=None)")
