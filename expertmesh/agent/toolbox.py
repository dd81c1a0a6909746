"""Which tools can a run have, and how is each made?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from expertmesh.agent.contained import Folder, Parts
from expertmesh.agent.sandbox.policy import Limits, Sandbox
from expertmesh.agent.tools.code_runner import CodeRunner
from expertmesh.agent.tools.command_result import USUAL
from expertmesh.agent.tools.file_editor import FileEditor
from expertmesh.agent.tools.plan import Plan, UpdatePlan
from expertmesh.agent.tools.python_executor import PythonExecutor
from expertmesh.agent.tools.registry import Registry
from expertmesh.agent.tools.search_files import SearchFiles
from expertmesh.agent.tools.shell import Shell
from expertmesh.agent.tools.tool import Tool


@dataclass(frozen=True, kw_only=True)
class Materials:
    """What the tools of a run are made of."""

    folder: Folder
    sandbox: Sandbox
    outputs: Path
    before_change: Callable[[Parts], None]
    on_output: Callable[[str], None]
    on_plan: Callable[[Plan], None]
    writable: bool = True
    """Whether the work folder may be changed."""
    limits: Limits = USUAL


_MAKERS: dict[str, Callable[[Materials], Tool]] = {
    "python_executor": lambda of: PythonExecutor(of.sandbox, of.limits, on_output=of.on_output),
    "shell": lambda of: Shell(of.sandbox, of.limits, on_output=of.on_output),
    "code_runner": lambda of: CodeRunner(of.sandbox, of.limits, on_output=of.on_output),
    "file_editor": lambda of: FileEditor(
        of.folder, of.outputs, of.before_change, writable=of.writable
    ),
    "search_files": lambda of: SearchFiles(of.sandbox),
    "update_plan": lambda of: UpdatePlan(of.on_plan),
}
OWN_TOOLS = tuple(_MAKERS)


def check_names(names: Sequence[str]) -> None:
    """Raises ValueError naming what does not exist."""
    unknown = [name for name in names if name not in _MAKERS]
    if unknown:
        known = ", ".join(_MAKERS)
        raise ValueError(f"tools: there is no {', '.join(unknown)}; there are {known}")


def make_registry(of: Materials, names: Sequence[str], others: Sequence[Tool] = ()) -> Registry:
    """Our tools of these names, then the others. Raises ValueError for two of one name."""
    return Registry([*(_MAKERS[name](of) for name in names), *others])
