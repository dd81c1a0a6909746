"""What the tools that run something return."""

import json
from pathlib import Path
from typing import Any

import pytest

from expertmesh.agent.sandbox.policy import Ending, Limits, Outcome
from expertmesh.agent.tools.code_runner import CodeRunner
from expertmesh.agent.tools.command_result import command_result
from expertmesh.agent.tools.plan import Plan, UpdatePlan
from expertmesh.agent.tools.python_executor import PythonExecutor
from expertmesh.agent.tools.registry import Registry
from expertmesh.agent.tools.search_files import SearchFiles
from expertmesh.agent.tools.shell import Shell
from expertmesh.agent.tools.tool import Result, Status, Tool
from tests.support.expertmesh.plain_sandbox import PlainSandbox


@pytest.fixture
def sandbox(tmp_path: Path) -> PlainSandbox:
    return PlainSandbox(tmp_path)


async def use(tool: Tool, **arguments: Any) -> Result:
    checked = Registry([tool]).check(tool.name, json.dumps(arguments))
    return await tool.call(checked.arguments)


async def test_what_succeeds_quietly_returns_its_output_alone(sandbox: PlainSandbox) -> None:
    result = await use(PythonExecutor(sandbox), code="print(123456 * 654321)")
    assert (result.status, result.text) == (Status.OK, "80779853376")
    assert result.sources[0].place == "python: print(123456 * 654321)"


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        ("x = 1", Status.OK, "(it printed nothing)"),
        ("1 + 1", Status.OK, "(it printed nothing: use print() for what you want to see)"),
        ("import sys; sys.exit(3)", Status.FAILED, "exit code 3"),
        (
            "import sys; print(1); sys.stderr.write('oh')",
            Status.OK,
            "exit code 0\nstdout:\n1\nstderr:\noh",
        ),
    ],
)
async def test_results_say_how_a_program_ended(
    sandbox: PlainSandbox, code: str, status: Status, text: str
) -> None:
    result = await use(PythonExecutor(sandbox), code=code)
    assert (result.status, result.text) == (status, text)


async def test_a_command_of_several_lines_is_cited_in_one(sandbox: PlainSandbox) -> None:
    result = await use(Shell(sandbox), command="echo a\n  echo b\n" + "true\n" * 99)
    (source,) = result.sources
    assert source.place.startswith("$ echo a echo b true")
    assert len(source.place) == 120


async def test_a_traceback_comes_back(sandbox: PlainSandbox) -> None:
    result = await use(PythonExecutor(sandbox), code="print(1)\n1 / 0")
    assert result.status is Status.FAILED
    assert result.text.startswith("exit code 1\nstdout:\n1\nstderr:\nTraceback")
    assert result.text.endswith("ZeroDivisionError: division by zero")


async def test_shell_has_its_own_time_and_folder(sandbox: PlainSandbox, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    result = await use(Shell(sandbox), command="basename $PWD", folder="sub")
    assert result.text == "sub"
    result = await use(Shell(sandbox, Limits(wall_s=0.05)), command="sleep 5")
    assert result.status is Status.TIMED_OUT
    assert "by its limit on wall time" in result.text
    assert (await use(Shell(sandbox), command="ls", folder="../..")).status is Status.FAILED


@pytest.mark.parametrize(
    ("ending", "words", "status"),
    [
        (Ending.WALL_TIME, "its limit on wall time of 30 s", Status.TIMED_OUT),
        (Ending.MEMORY, "its limit on memory of 1024 MiB", Status.FAILED),
        (Ending.PROCESSES, "its limit on processes of 64", Status.FAILED),
        (Ending.OUTPUT, "its limit on output", Status.FAILED),
        (Ending.KILLED, "killed after 2.0 s", Status.FAILED),
    ],
)
def test_a_limit_is_named(ending: Ending, words: str, status: Status) -> None:
    result = command_result(Outcome(ending, None, "so far", "", 2.0, False), Limits(), "$ x")
    assert result.status is status
    assert words in result.text
    assert result.text.endswith("stdout:\nso far")


async def test_code_runner_runs_files_and_code(sandbox: PlainSandbox, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import sys; print(sys.argv[1:], input())")
    runner = CodeRunner(sandbox)
    result = await use(runner, file_path="a.py", arguments=["x", "y z"], stdin="in")
    assert result.text == "['x', 'y z'] in"
    result = await use(runner, language="bash", code='echo "$1 $0"', arguments=["one"])
    assert result.text.startswith("one /")
    assert result.text.endswith("/code.sh")
    assert "a.zig: its suffix is none of .py" in (await use(runner, file_path="a.zig")).text
    assert (await use(runner)).status is Status.FAILED
    assert (await use(runner, file_path="a.py", code="x")).status is Status.FAILED


async def test_search_finds_text_and_names(sandbox: PlainSandbox, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.rb").write_text("one\ndef f(x):\n    return x.y\n")
    (tmp_path / "b" / "note.txt").write_text("def f(x):\r\n")
    (tmp_path / "b" / "bytes").write_bytes(b"\0def f(x):")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x").write_text("def f(x):")
    search = SearchFiles(sandbox)
    assert (await use(search, pattern="def f(x)")).text == (
        "b/a.rb:2: def f(x):\nb/note.txt:1: def f(x):"
    )
    assert (await use(search, pattern=r"X\.\w", regex=True, ignore_case=True)).text == (
        "b/a.rb:3:     return x.y"
    )
    assert (await use(search, files="*.rb")).text == "b/a.rb"
    assert (await use(search, files="*.txt", folder="b")).text == "b/note.txt"
    assert (await use(search, pattern="none")).text == "no matches"
    result = await use(search, pattern="(", regex=True)
    assert result.status is Status.FAILED
    assert "not a regular expression" in result.text


async def test_a_search_that_takes_for_ever_ends(sandbox: PlainSandbox, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a" * 60)
    search = SearchFiles(sandbox, Limits(wall_s=0.5))
    result = await use(search, pattern="(a+)+$b", regex=True)
    assert result.status is Status.TIMED_OUT


async def test_many_matches_are_cut_off(sandbox: PlainSandbox, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x\n" * 1000)
    lines = (await use(SearchFiles(sandbox), pattern="x")).text.splitlines()
    assert (len(lines), lines[-1]) == (101, "[more than 100 matches: search for less]")


async def test_a_plan_is_noted_and_shown() -> None:
    seen: list[Plan] = []
    tool = UpdatePlan(seen.append)
    steps = [{"step": "look", "status": "done"}, {"step": "mend", "status": "in_progress"}]
    assert (await use(tool, steps=steps)).text == "noted: 1 of 2 steps are done"
    assert seen == [[("done", "look"), ("in_progress", "mend")]]
    steps[0]["status"] = "in_progress"
    assert (await use(tool, steps=steps)).status is Status.FAILED
