"""`expertmesh data` as it is typed: a scripted server, and the real sandbox."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.expertmesh.command import run_command
from tests.support.expertmesh.fake_openai_server import FakeServer, Script
from tests.support.expertmesh.sandbox.working import work_folder
from tests.support.expertmesh.scripted_text import in_turn, refuses, says
from tests.support.places import ROOT

SUMS = """```python
import csv
with open("sales.csv", newline="") as file:
    rows = list(csv.DictReader(file))
print("total", sum(float(row["price"]) for row in rows if row["price"]))
open("bars.svg", "w").write('<svg xmlns="http://www.w3.org/2000/svg"/>')
```"""
WRONG = SUMS.replace('["price"]', '["prize"]', 1)
GOAL = "What do all of them cost?"


@pytest.fixture
def sales(tmp_path: Path) -> Path:
    path = tmp_path / "sales.csv"
    path.write_text("city,price\nOslo,1.5\nRome,4\nBergen,\n")
    return path


@pytest.fixture
def serve() -> Iterator[FakeServer]:
    """Its script is set by the test."""
    server = FakeServer(says("not scripted"))
    yield server
    server.close()


@pytest.fixture
def sandbox() -> None:
    with work_folder():
        pass


def data(
    *words: str | Path, url: str = "http://127.0.0.1:9", **others: str
) -> subprocess.CompletedProcess:
    return run_command("data", *map(str, words), "--base-url", url, **others)


@pytest.mark.usefixtures("sandbox")
def test_a_script_is_mended_run_and_reported(
    serve: FakeServer, sales: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    serve.script = in_turn(says(WRONG, thinking="hm"), says(SUMS), says("They cost 5.5, or 6."))
    done = data("analyse", sales, GOAL, "--out", out, url=serve.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "They cost 5.5, or 6.\n"
    assert "try 1: exit code 1: KeyError: 'prize'" in done.stderr
    assert {one.name for one in out.iterdir()} == {"analysis.py", "bars.svg", "report.md", "tries"}
    tries = sorted(one.name for one in (out / "tries").iterdir())
    assert tries == ["1-analysis.py", "1-result.txt", "2-analysis.py", "2-result.txt", "files.txt"]
    assert "total 5.5" in (out / "report.md").read_text()
    assert "![bars.svg](bars.svg)" in (out / "report.md").read_text()
    repaired = subprocess.run(
        [sys.executable, out / "analysis.py"], cwd=tmp_path, capture_output=True, timeout=60
    )
    assert repaired.stdout == b"total 5.5\n"
    again = data("analyse", sales, GOAL, "--out", out, url=serve.url)
    assert again.returncode == 2
    assert "is not empty; choose another folder, or add --force" in again.stderr


@pytest.mark.usefixtures("sandbox")
def test_the_script_reaches_neither_the_file_itself_nor_the_network(
    serve: FakeServer, sales: Path, tmp_path: Path
) -> None:
    attack = f"""```python
import os, socket
for act in (
    lambda: open({str(sales)!r}, "a").write("x"),
    lambda: open("sales.csv", "a").write("x"),
    lambda: os.remove("sales.csv"),
    lambda: socket.create_connection(("127.0.0.1", {serve.url.rpartition(":")[2]}), 2),
):
    try:
        act()
        print("done")
    except OSError as error:
        print(type(error).__name__)
```"""
    serve.script = in_turn(says(attack), says("Refused."))
    done = data("analyse", sales, GOAL, "--out", tmp_path / "out", "--json", url=serve.url)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "done" not in told["output"].split()
    assert len(told["output"].split()) == 4
    assert sales.read_text().endswith("Bergen,\n")
    assert told["succeeded"] is True


@pytest.mark.usefixtures("sandbox")
def test_when_no_script_does_it_says_so_and_keeps_them(
    serve: FakeServer, sales: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    serve.script = says("I would rather not.")
    done = data("analyse", sales, "--out", out, url=serve.url, stdin=f"{GOAL}\n")
    assert (done.returncode, done.stdout) == (5, "")
    assert "no script did what it should, in 4 tries" in done.stderr
    assert len(list((out / "tries").iterdir())) == 8
    assert not (out / "report.md").exists()
    assert GOAL in json.dumps(serve.bodies[0])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["analyse", "none.csv", GOAL, "--out", "o"], "none.csv: there is no such file"),
        (["analyse", "{sales}", "--out", "o"], "there is no goal"),
        (["analyse", "{sales}", GOAL, "--out", "{sales}"], "is a file; give a folder"),
        (["analyse", "{sales}", GOAL, "--out", "o", "--delimiter", ";;"], "--delimiter: one"),
        (["explain", "none.csv"], "none.csv: there is no such file"),
        (["explain", "a/b"], "a/b: there is no such file"),
        (["explain", "{sales}", "--profile", "--column", "x"], "it has city, price"),
        (["explain", "mean", "--column", "x"], "mean: there is no such file"),
        (["suggest", "none.csv"], "none.csv: there is no such file"),
    ],
)
def test_wrong_usage_is_one_line_before_any_model_is_asked(
    sales: Path, words: list[str], why: str
) -> None:
    done = data(*(word.format(sales=sales) for word in words))
    assert done.returncode == 2, done.stderr
    assert why in done.stderr
    assert len(done.stderr.splitlines()) <= 2


@pytest.mark.parametrize("command", ["explain", "suggest"])
def test_a_file_that_is_no_table_is_a_usage_error(
    serve: FakeServer, tmp_path: Path, command: str
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"\x1f\x8b\x08")
    done = data(command, path, url=serve.url)
    assert done.returncode == 2
    assert "compressed by gzip: unpack it first" in done.stderr


def test_without_a_server_it_says_where_none_is(sales: Path, tmp_path: Path) -> None:
    for words in (
        ("explain", sales),
        ("suggest", sales),
        ("analyse", sales, GOAL, "--out", tmp_path / "o"),
    ):
        done = data(*words)
        assert done.returncode == 3
        assert "cannot reach http://127.0.0.1:9" in done.stderr


def test_a_server_that_refuses_is_a_failure(serve: FakeServer, sales: Path) -> None:
    serve.script = refuses(400)
    done = data("explain", sales, url=serve.url)
    assert done.returncode == 1
    assert "answered 400" in done.stderr


def test_a_profile_needs_no_model(sales: Path) -> None:
    done = data("explain", sales, "--profile")
    assert done.returncode == 0, done.stderr
    assert '- "price": decimal; 1 missing' in done.stdout
    told = json.loads(data("explain", sales, "--profile", "--json").stdout)
    assert [one["kind"] for one in told["columns"]] == ["text", "decimal"]
    column = data("explain", sales, "--profile", "--column", "price", "--language", "zh")
    assert column.stdout.startswith("\u5c0f\u6570\n")


def test_numbers_that_are_not_in_the_profile_are_marked(serve: FakeServer, sales: Path) -> None:
    serve.script = says("Prices up to 4, for 77 people.")
    done = data("explain", sales, url=serve.url)
    assert done.stdout == "Prices up to 4, for 77 [not in the profile] people.\n"
    told = json.loads(data("explain", sales, "--column", "price", "--json", url=serve.url).stdout)
    assert told["numbers_not_in_profile"] == ["77"]


def test_a_concept_is_explained(serve: FakeServer) -> None:
    serve.script = says("How spread out numbers are.")
    done = data("explain", "standard deviation", "--level", "advanced", url=serve.url)
    assert done.stdout == "How spread out numbers are.\n"
    assert "The reader works with statistics" in json.dumps(serve.bodies[0])


def test_questions_come_with_commands(serve: FakeServer, sales: Path) -> None:
    one = {"question": "Which city?", "why": "To know.", "columns": ["city"], "chart": "bar"}
    other = {**one, "columns": ["town"]}
    serve.script = says(json.dumps([one, other]))
    done = data("suggest", sales, url=serve.url)
    assert f"expertmesh data analyse {sales} 'Which city?' --out analysis-1" in done.stdout
    assert "1 left out" in done.stderr
    told = json.loads(data("suggest", sales, "--json", url=serve.url).stdout)
    assert told["suggestions"][0]["columns"] == ["city"]
    assert told["left_out"] == 1


def never_ends() -> Script:
    return lambda body: [{"choices": [{"index": 0, "delta": {"content": "x"}}]}, 60.0]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Not below pytest's folder, which whom scripts run as may not enter."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.slow
@pytest.mark.usefixtures("sandbox")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_behind(
    serve: FakeServer, sales: Path, tmp_path: Path, temporary: Path, sent: signal.Signals
) -> None:
    serve.script = never_ends()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "expertmesh",
            "data",
            "analyse",
            sales,
            GOAL,
            "--out",
            tmp_path / "o",
        ],
        env={**os.environ, "EXPERTMESH_BASE_URL": serve.url, "TMPDIR": str(temporary)},
        cwd=ROOT,
        stderr=subprocess.PIPE,
    )
    deadline_s = time.monotonic() + 60
    while not serve.bodies and time.monotonic() < deadline_s and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert b"Traceback" not in stderr
    assert list(temporary.iterdir()) == []
