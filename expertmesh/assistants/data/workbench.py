"""Where does a script see the data and nothing else? A folder of its own, in the sandbox."""

import asyncio
import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from expertmesh.agent.sandbox.choose import choose_sandbox
from expertmesh.agent.sandbox.folders.identity import give_away
from expertmesh.agent.sandbox.folders.removal import remove_tree
from expertmesh.agent.sandbox.policy import Limits, Outcome, Sandbox
from expertmesh.agent.tools.command_result import PYTHON
from expertmesh.assistants.data.produced import Produced, find_produced

SCRIPT = "analysis.py"
LIMITS = Limits(wall_s=120.0, cpu_s=120.0, memory_bytes=2 << 30)
MOST_DATA_BYTES = 2 << 30
LIBRARIES = ("pandas", "numpy", "matplotlib", "seaborn", "scipy", "statsmodels", "polars",
             "openpyxl", "pyarrow")  # fmt: skip
"""What a script may find useful; those of them that are there are told to the model."""
_PLAIN_NAME = re.compile(r"\w[\w .()+=-]*")
_COPY_BYTES = 4 << 20
_PROBE = (
    "import importlib.metadata as m, importlib.util as u, json, platform, sys\n"
    "found = {'python': platform.python_version()}\n"
    "for name in sys.argv[1:]:\n"
    "    if u.find_spec(name):\n"
    "        try: found[name] = m.version(name)\n"
    "        except m.PackageNotFoundError: found[name] = ''\n"
    "print(json.dumps(found))\n"
)


@dataclass(frozen=True)
class Ran:
    """One run of a script."""

    outcome: Outcome
    produced: tuple[Produced, ...]
    more_files: int
    """Beyond those that are listed."""


class Workbench:
    """A copy of the data in a new folder, and a sandbox around it; use it in a `with` statement.

    A copy, since a sandbox shows its work folder and the system, and nobody whose rights are less
    than ours could read every file of ours; it is read-only there.
    """

    def __init__(
        self,
        data: Path,
        *,
        limits: Limits = LIMITS,
        sandbox_of: Callable[..., Sandbox] = choose_sandbox,
    ):
        """Raises ValueError for data that is too large, and OSError."""
        self._data = data
        self.limits = limits
        size_bytes = data.stat().st_size
        if size_bytes > MOST_DATA_BYTES:
            raise ValueError(
                f"{data}: a script gets at most {MOST_DATA_BYTES >> 30} GiB of data; this file has "
                f"{size_bytes / (1 << 30):.1f} GiB: analyse a part of it"
            )
        self.data_name = inner_name(data.name)
        self.folder = Path(tempfile.mkdtemp(prefix="expertmesh-data-")).resolve()
        self._sandbox_of = sandbox_of
        self._sandbox: Sandbox | None = None

    async def open(self, progress: Callable[[int], None] = lambda done_bytes: None) -> None:
        """Copy the data and try the sandbox. Raises OSError and SandboxUnavailableError."""
        inside = self.folder / self.data_name
        free_bytes = shutil.disk_usage(self.folder).free
        if self._data.stat().st_size > free_bytes:
            raise OSError(
                f"{self.folder.parent} has {free_bytes >> 20:,} MiB free, too few for a copy of "
                f"{self._data}; TMPDIR names another place"
            )
        is_left = threading.Event()
        try:
            await asyncio.to_thread(_copy, self._data, inside, is_left, progress)
        finally:
            is_left.set()
        inside.chmod(0o444)
        give_away(self.folder, inside)
        self._sandbox = self._sandbox_of(self.folder, protected=[inside])

    @property
    def mechanism(self) -> str:
        assert self._sandbox is not None
        return self._sandbox.mechanism

    async def installed(self) -> Mapping[str, str]:
        """Name -> version of Python, and of the libraries that scripts find."""
        assert self._sandbox is not None
        argv = [PYTHON, "-c", _PROBE, *LIBRARIES]
        outcome = await self._sandbox.run(argv, limits=self.limits)
        if not outcome.ok:
            raise OSError(f"Python does not run in the sandbox: {outcome.stderr.strip()[-500:]}")
        found: dict[str, str] = json.loads(outcome.stdout)
        return found

    async def run(self, script: str, on_output: Callable[[str], None] | None = None) -> Ran:
        """Run it where there is nothing but it and the data. Raises OSError."""
        assert self._sandbox is not None
        self._clear()
        (self.folder / SCRIPT).write_text(script, encoding="utf-8", errors="replace")
        outcome = await self._sandbox.run(
            [PYTHON, "-B", SCRIPT], limits=self.limits, on_output=on_output
        )
        produced, more = find_produced(self.folder, (self.data_name, SCRIPT))
        return Ran(outcome, tuple(produced), more)

    def _clear(self) -> None:
        """Of what an earlier script has left; `.git` is the sandbox's own placeholder."""
        for path in list(self.folder.iterdir()):
            if path.name in (self.data_name, ".git"):
                continue
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
                remove_tree(path)
            else:
                path.unlink()

    def __enter__(self) -> "Workbench":
        return self

    def __exit__(self, *_: object) -> None:
        self._sandbox = None
        self.folder.chmod(0o700)
        remove_tree(self.folder)


def inner_name(name: str) -> str:
    """The file's own name, unless a script could stumble on it."""
    suffix = Path(name).suffix
    is_plain = _PLAIN_NAME.fullmatch(name) and len(os.fsencode(name)) <= 120 and suffix != ".py"
    if is_plain and name.strip() == name:
        return name
    return (
        f"data{suffix}" if re.fullmatch(r"\.[a-z0-9]{1,10}", suffix) and suffix != ".py" else "data"
    )


def _copy(
    source: Path, target: Path, is_left: threading.Event, progress: Callable[[int], None]
) -> None:
    done_bytes = 0
    with source.open("rb") as file, target.open("xb") as copy:
        while (data := file.read(_COPY_BYTES)) and not is_left.is_set():
            copy.write(data)
            done_bytes += len(data)
            progress(done_bytes)
