"""Where are tests run against code that is changed on purpose? In a copy, in the sandbox.

Nothing in the project itself is touched, whatever the tests do and however they are ended.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from expertmesh.agent.sandbox.choose import choose_sandbox
from expertmesh.agent.sandbox.folders.identity import give_away
from expertmesh.agent.sandbox.policy import Limits, Outcome, Sandbox
from expertmesh.agent.tools.command_result import PYTHON

MAX_FILES = 5_000
MAX_BYTES = 128 << 20
LEFT_OUT = frozenset(
    {
        *(".git", ".hg", ".svn", ".venv", "venv", "env", "node_modules", "__pycache__", ".tox"),
        *(".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".idea", ".eggs"),
    }
)
"""Folders that are not copied: they hold no code of the project."""


class Workshop:
    """A copy of a project's files, which vanishes at the end; use it in a `with` statement."""

    def __init__(
        self,
        root: Path | None = None,
        *,
        make_sandbox: Callable[[Path], Sandbox] = choose_sandbox,
    ):
        """`root`: the project's folder, None for an empty one. Raises ValueError if it is too
        large to be copied, SandboxUnavailableError, and OSError."""
        files = list(_files(root)) if root is not None else []
        self._folder = tempfile.TemporaryDirectory(prefix="expertmesh-dev-")
        self.path = Path(self._folder.name)
        try:
            for one in files:
                self._copy(root or Path(), one)
            give_away(self.path, *self.path.rglob("*"))
            self.sandbox = make_sandbox(self.path)
        except BaseException:
            self._folder.cleanup()
            raise

    def write(self, name: str, text: str) -> None:
        """A file of the copy, by its path below the root."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        give_away(path, *(one for one in path.parents if one.is_relative_to(self.path)))

    async def python(
        self, *arguments: str, imports: str = ".", limits: Limits, folder: str = "."
    ) -> Outcome:
        """Run Python there; `imports`: the folder, below the root, where modules are found."""
        settings = ["PYTHONDONTWRITEBYTECODE=1", f"PYTHONPATH={self.path / imports}"]
        argv = ["env", *settings, PYTHON, *arguments]
        return await self.sandbox.run(argv, limits=limits, folder=folder)

    def close(self) -> None:
        self._folder.cleanup()

    def __enter__(self) -> "Workshop":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _copy(self, root: Path, file: Path) -> None:
        target = self.path / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _files(root: Path) -> Iterator[Path]:
    """What is copied: regular files, without links. Raises ValueError if it is too much."""
    count, size_bytes = 0, 0
    for place, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - LEFT_OUT)
        for name in sorted(names):
            path = Path(place) / name
            if path.is_symlink() or not path.is_file() or not os.access(path, os.R_OK):
                continue
            count, size_bytes = count + 1, size_bytes + path.stat().st_size
            if count > MAX_FILES or size_bytes > MAX_BYTES:
                raise ValueError(
                    f"{root}: more than {MAX_FILES:,} files or {MAX_BYTES >> 20} MiB, too much to "
                    "be copied; give a smaller folder that the code runs in (--root)"
                )
            yield path
