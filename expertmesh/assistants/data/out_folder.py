"""Where does an analysis go? A folder of the user's, in which nothing else is overwritten."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from expertmesh.assistants.data.produced import Produced, copy_file
from expertmesh.assistants.data.workbench import SCRIPT

REPORT = "report.md"
TRIES = "tries"
_OURS = (REPORT, SCRIPT, TRIES)


def check_out(path: Path, *, force: bool) -> None:
    """Raises ValueError for a folder that has files, unless `force`, and for what is no folder."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out: {path} is a file; give a folder")
    if path.is_dir() and not force and any(path.iterdir()):
        raise ValueError(f"--out: {path} is not empty; choose another folder, or add --force")


class OutFolder:
    """`report.md`, `analysis.py`, what the script made, and every try in `tries/`."""

    def __init__(self, path: Path, *, force: bool = False):
        """Make the folder. Raises ValueError if it has files and `force` is false, and OSError."""
        check_out(path, force=force)
        self.path = path
        tries = path / TRIES
        if tries.is_dir() and not tries.is_symlink():
            shutil.rmtree(tries)
        for old in (REPORT, SCRIPT):  # of an earlier analysis, which this one may not replace
            (path / old).unlink(missing_ok=True)
        tries.mkdir(parents=True)

    def keep_try(self, number: int, script: str, result: str) -> None:
        """A script and what came of it. Raises OSError."""
        self._write(f"{TRIES}/{number}-{SCRIPT}", script)
        self._write(f"{TRIES}/{number}-result.txt", result)

    def keep_script(self, script: str) -> None:
        self._write(SCRIPT, script)

    def keep_report(self, text: str) -> Path:
        return self._write(REPORT, text)

    def keep_produced(self, folder: Path, produced: Iterable[Produced]) -> dict[str, str]:
        """The script's name of each file -> where it is now, relative to this folder.

        Raises OSError.
        """
        places: dict[str, str] = {}
        taken: set[str] = set()
        for one in produced:
            place = _free(_plain(one.path), taken)
            copy_file(folder / one.path, self.path / place)
            places[one.path] = place
        return places

    def _write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.write_text(text, encoding="utf-8", errors="replace")
        return path


def _plain(path: str) -> str:
    """Without characters that a terminal or a link could trip over; never one of our names."""
    parts = ["".join(c if c.isprintable() else "_" for c in part) for part in path.split("/")]
    if parts[0].casefold() in _OURS:
        parts[0] = f"script-{parts[0]}"
    return "/".join(parts)


def _free(place: str, taken: set[str]) -> str:
    """Two names may have become the same, and some file systems take A for a."""
    new, number = place, 1
    while new.casefold() in taken:
        number += 1
        path = Path(place)
        new = str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
    taken.add(new.casefold())
    return new
