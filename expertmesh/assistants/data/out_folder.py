"""Where does an analysis go? A folder of the user's, in which nothing else is overwritten."""

import contextlib
import os
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from expertmesh.assistants.data.produced import Produced, copy_file
from expertmesh.assistants.data.workbench import SCRIPT

REPORT = "report.md"
TRIES = "tries"
_OURS = (REPORT, SCRIPT, TRIES)
_MADE = "files.txt"
"""In TRIES: what the script made, so that another analysis may replace it."""


def check_out(path: Path, *, force: bool) -> None:
    """Raises ValueError for a folder that has files, unless `force`, and for what is no folder.

    Even with `force`, only the report and the script of an earlier analysis are replaced.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out: {path} is a file; give a folder")
    if path.is_dir() and not force and any(path.iterdir()):
        raise ValueError(f"--out: {path} is not empty; choose another folder, or add --force")
    for name in (REPORT, SCRIPT):
        if os.path.lexists(path / name) and not (path / TRIES).is_dir():
            raise ValueError(
                f"--out: {path / name} is no earlier analysis's; choose another folder"
            )


class OutFolder:
    """`report.md`, `analysis.py`, what the script made, and every try in `tries/`.

    A script's files never replace others than those of an earlier analysis: they get other names.
    """

    def __init__(self, path: Path, *, force: bool = False):
        """Make the folder. Raises ValueError if it has files and `force` is false, and OSError."""
        check_out(path, force=force)
        self.path = path
        tries = path / TRIES
        self._remove_earlier()
        tries.mkdir(parents=True)
        self._others = {one.name.casefold() for one in path.iterdir()}

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
        tops: dict[str, str] = {}
        for one in produced:
            top, *rest = _plain(one.path).split("/")
            if top not in tops:
                tops[top] = _free(top, self._others)
            place = _free("/".join([tops[top], *rest]), taken)
            taken.add(place.casefold())
            copy_file(folder / one.path, self.path / place)
            places[one.path] = place
        self._write(f"{TRIES}/{_MADE}", "".join(f"{place}\n" for place in places.values()))
        return places

    def _remove_earlier(self) -> None:
        """What an earlier analysis has left: its files are listed, and no others are touched."""
        tries = self.path / TRIES
        if not tries.is_dir() or tries.is_symlink():
            return
        made = tries / _MADE
        listed = made.read_text(encoding="utf-8").splitlines() if made.is_file() else []
        root = self.path.resolve()
        for name in (*listed, REPORT, SCRIPT):
            path = self.path / name
            is_below = path.parent.resolve().is_relative_to(root)
            if is_below and (path.is_symlink() or not path.is_dir()):
                path.unlink(missing_ok=True)
                for folder in Path(name).parents[:-1]:
                    with contextlib.suppress(OSError):  # it holds something else
                        (self.path / folder).rmdir()
        shutil.rmtree(tries)

    def _write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.write_text(text, encoding="utf-8", errors="replace")
        return path


def _plain(path: str) -> str:
    """Without characters that a terminal or a link could trip over."""
    return "".join(one if one.isprintable() else "_" for one in path)


def _free(place: str, taken: Collection[str]) -> str:
    """Another name for one that is taken, or ours; some file systems take A for a."""
    new, number = place, 1
    while new.casefold() in taken or new.casefold() in _OURS:
        number += 1
        path = Path(place)
        new = str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
    return new
