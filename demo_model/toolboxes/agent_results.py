"""What does the model read after a call of our agent's tools? The tools themselves say so.

They work on files in memory, and what programs print is given: no process is started.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from expertmesh.agent.contained import Folder, Parts
from expertmesh.agent.loop.approval import effect_of
from expertmesh.agent.loop.clip import clipped
from expertmesh.agent.loop.evidence import Ledger
from expertmesh.agent.loop.hints import Hints
from expertmesh.agent.loop.recovery import Recovery
from expertmesh.agent.sandbox.policy import DEFAULT_LIMITS, Ending, Limits, Outcome, Sandbox
from expertmesh.agent.tools.file_editor import FileEditor
from expertmesh.agent.tools.plan import UpdatePlan
from expertmesh.agent.tools.python_executor import PythonExecutor
from expertmesh.agent.tools.search_files import SearchFiles
from expertmesh.agent.tools.shell import Shell
from expertmesh.agent.tools.tool import Effect, Result, Tool


class MemoryFolder(Folder):
    """A work folder whose files are in a dictionary."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    def parts(self, path: str) -> Parts:
        return tuple(path.split("/"))

    def read(self, parts: Parts, max_bytes: int) -> bytes:
        try:
            return self.files["/".join(parts)].encode()
        except KeyError:
            raise FileNotFoundError from None

    def write(self, parts: Parts, data: bytes, mode: int | None = None) -> None:
        self.files["/".join(parts)] = data.decode()


class GivenOutcome:
    """A sandbox in which each command ends as it was said before."""

    mechanism = "none"

    def __init__(self) -> None:
        self.next = exited("", "", 0)

    async def run(
        self,
        argv: Sequence[str],
        *,
        limits: Limits = DEFAULT_LIMITS,
        folder: str = ".",
        stdin: bytes = b"",
        on_output: Callable[[str], None] | None = None,
    ) -> Outcome:
        return self.next


def exited(stdout: str, stderr: str, exit_code: int) -> Outcome:
    return Outcome(Ending.EXITED, exit_code, stdout, stderr, 0.1, False)


def timed_out(ending: Ending, seconds: float) -> Outcome:
    return Outcome(ending, None, "", "", seconds, False)


_MAKERS: dict[str, Callable[[Folder, Sandbox], Tool]] = {
    "python_executor": lambda folder, sandbox: PythonExecutor(sandbox),
    "shell": lambda folder, sandbox: Shell(sandbox),
    "file_editor": lambda folder, sandbox: FileEditor(folder),
    "search_files": lambda folder, sandbox: SearchFiles(sandbox),
    "update_plan": lambda folder, sandbox: UpdatePlan(),
}


class AgentResults:
    """The results of one conversation: with the numbers of their sources, and notes."""

    def __init__(self, folder: Folder, sandbox: Sandbox, hints: Hints) -> None:
        self._folder = folder
        self._sandbox = sandbox
        self._tools: dict[str, Tool] = {}
        self._ledger = Ledger()
        self._recovery = Recovery(hints)

    @property
    def num_sources(self) -> int:
        return len(self._ledger.sources)

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """What the tool answers to arguments that fit its schema. Raises GivenUpError."""
        if name not in self._tools:
            self._tools[name] = _MAKERS[name](self._folder, self._sandbox)
        tool = self._tools[name]
        return self.of_result(
            name, arguments, effect_of(tool, arguments), _done(tool.call(arguments))
        )

    def of_result(
        self, name: str, arguments: dict[str, Any], effect: Effect, result: Result
    ) -> str:
        """How the agent shows a result: as `expertmesh.agent.loop.calls` does (a test compares)."""
        note = self._recovery.valid(name, arguments)
        self._recovery.done(name, arguments, effect, result.status)
        numbers = [self._ledger.add(source) for source in result.sources]
        added = [f"[{n}] {one.place}" for n, one in zip(numbers, result.cited, strict=False)]
        return "\n".join([clipped(result.text), *([note] if note else []), *added])

    def told(self) -> None:
        """The user said something new."""
        self._recovery.told()


def _done(call: Coroutine[Any, Any, Result]) -> Result:
    """The value of a coroutine that waits for nothing."""
    try:
        call.send(None)
    except StopIteration as end:
        result: Result = end.value
        return result
    raise AssertionError("the tool waits for something")
