"""The tools that run something, in the sandbox that this machine has."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from expertmesh.agent.contained import Folder
from expertmesh.agent.loop.verify import Verifier
from expertmesh.agent.sandbox.choose import choose_sandbox
from expertmesh.agent.sandbox.policy import Sandbox
from expertmesh.agent.tools.code_runner import CodeRunner
from expertmesh.agent.tools.file_editor import FileEditor
from expertmesh.agent.tools.python_executor import PythonExecutor
from expertmesh.agent.tools.search_files import SearchFiles
from expertmesh.agent.tools.shell import Shell
from expertmesh.agent.tools.tool import Status
from tests.support.expertmesh.sandbox.working import work_folder


@pytest.fixture
def work() -> Iterator[Path]:
    with work_folder() as folder:
        yield folder


@pytest.fixture
def sandbox(work: Path) -> Sandbox:
    return choose_sandbox(work)


async def test_code_runs_and_writes_what_the_editor_reads(sandbox: Sandbox, work: Path) -> None:
    code = "open('a.txt', 'w').write('from inside\\n'); print(2 ** 100)"
    result = await PythonExecutor(sandbox).call({"code": code})
    assert (result.status, result.text) == (Status.OK, str(2**100))
    editor = FileEditor(Folder(work))
    read = await editor.call({"action": "read", "file_path": "a.txt"})
    assert read.text == "from inside\n"
    made = {"action": "write", "file_path": "new/b.txt", "content": "from outside\n"}
    assert (await editor.call(made)).status is Status.OK
    result = await Shell(sandbox).call({"command": "echo more >> new/b.txt; cat new/b.txt"})
    assert result.text == "from outside\nmore"


async def test_files_and_code_are_run(sandbox: Sandbox, work: Path) -> None:
    (work / "a.py").write_text("import sys; print(sys.argv[1])")
    runner = CodeRunner(sandbox)
    assert (await runner.call({"file_path": "a.py", "arguments": ["x"]})).text == "x"
    assert (await runner.call({"language": "bash", "code": "echo $((6 * 7))"})).text == "42"


async def test_the_search_finds(sandbox: Sandbox, work: Path) -> None:
    (work / "a.txt").write_text("one\ntwo\n")
    found = await SearchFiles(sandbox).call({"pattern": "t.o", "regex": True})
    assert found.text == "a.txt:2: two"


async def test_the_network_and_other_folders_are_out_of_reach(sandbox: Sandbox) -> None:
    code = "import socket; socket.create_connection(('1.1.1.1', 53), 2)"
    assert (await PythonExecutor(sandbox).call({"code": code})).status is Status.FAILED
    listed = await Shell(sandbox).call({"command": "ls /root /home/* ~root; touch /usr/x"})
    assert listed.status is Status.FAILED


async def test_a_check_says_how_it_ended(sandbox: Sandbox) -> None:
    assert (await Verifier("true", sandbox).check()).passed
    failed = await Verifier("echo why; exit 3", sandbox).check()
    assert (failed.passed, failed.text) == (False, "exit code 3\nwhy")
