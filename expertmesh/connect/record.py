"""What has this command written, and where? Kept for the user alone, so that it can be undone."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from expertmesh.connect import disk
from expertmesh.connect.formats.format import UnmergeableError
from expertmesh.connect.merge import Change, Trace
from expertmesh.console import CommandError


@dataclass(frozen=True)
class Written:
    """One file into which something was written."""

    client: str
    scopes: tuple[str, ...]
    """The homes and projects for which it was written."""
    kind: str
    """Its format's name."""
    digest: str
    """Of the text as it was written."""
    exact: bool
    """Whether nobody but us has changed it since the first time."""
    existed: bool
    """Whether it was there before."""
    backup: str | None
    """Where its text before the first change is; None without a change or a file."""
    folders: tuple[str, ...]
    """Folders that were made for it, the inner ones first."""
    trace: Trace


class Record:
    """The written files by their paths, and copies of what they were; below one folder."""

    def __init__(self, folder: Path):
        """Raises CommandError if there is a record that cannot be read."""
        self.folder = folder
        self.backups = folder / "backups"
        self._path = folder / "written.json"
        self._text: str | None = None
        self.files: dict[str, Written] = {}
        try:
            self._text = disk.read(self._path)
            known = json.loads(self._text or "{}")
            self.files = {path: _written(told) for path, told in known.items()}
        except (UnmergeableError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CommandError(f"{self._path}: not a record of this command: {error}") from None

    def save(self) -> None:
        """Raises OSError."""
        told = {path: asdict(one) for path, one in self.files.items()}
        text = json.dumps(told, indent=1, ensure_ascii=False) + "\n"
        if text == self._text or not (told or self._text):
            return
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        disk.replace(self._path, self._text, text, private=True)
        self._text = text


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _written(told: dict[str, Any]) -> Written:
    trace = told["trace"]
    changes = tuple(
        Change(tuple(one["path"]), one["before"], one["after"]) for one in trace["changes"]
    )
    made, owned = (tuple(map(tuple, trace[name])) for name in ("made", "owned"))
    return Written(
        client=str(told["client"]),
        scopes=tuple(told["scopes"]),
        kind=str(told["kind"]),
        digest=str(told["digest"]),
        exact=bool(told["exact"]),
        existed=bool(told["existed"]),
        backup=told["backup"],
        folders=tuple(told["folders"]),
        trace=Trace(changes, made, owned),
    )
