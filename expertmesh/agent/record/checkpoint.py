"""What was in the work folder before a run changed it? Enough to put it back, byte for byte.

A file that the editor is about to change is copied first. Before the first command, which may
change anything, the whole folder is copied, the smallest files first, up to a limit; what does not
fit is known by name, and reported. A folder of very many names is not copied at all: then only what
the editor changes can be put back. `manifest.json` has what was there, `files/` the copies.
"""

import hashlib
import itertools
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from expertmesh.agent.contained import Folder, Parts
from expertmesh.agent.record.run_folder import private_file, write_private

MAX_BYTES = 512 << 20
MAX_NAMES = 50_000
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One name in the work folder. Nothing of it is set for an absent one."""

    kind: str
    """file, link, folder or absent."""
    mode: int = 0
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    inode: int = 0
    sha256: str = ""
    target: str = ""
    """Of a link."""
    copy: str = ""
    """Name in files/; empty where none was kept."""

    def is_same(self, other: "Entry") -> bool:
        """The same kind, mode and content."""
        if self.kind != other.kind or self.mode != other.mode:
            return False
        if self.kind == "file":
            return self.size == other.size and self.sha256 == other.sha256
        return self.target == other.target

    def looks_like(self, other: "Entry") -> bool:
        """Whether the file system says that nobody has touched it."""
        return (self.kind, self.mode, self.size, self.mtime_ns, self.ctime_ns, self.inode) == (
            *(other.kind, other.mode, other.size, other.mtime_ns, other.ctime_ns, other.inode),
        )


ABSENT = Entry(kind="absent")
Entries = dict[str, Entry]
"""By path, with / between names."""


class Checkpoint:
    """Keeps what a run may change; `place` is the run's own folder for it."""

    def __init__(
        self,
        folder: Folder,
        place: Path,
        *,
        left_out: Path | None = None,
        max_bytes: int = MAX_BYTES,
        max_names: int = MAX_NAMES,
    ):
        """`left_out`: below the work folder, and no part of it."""
        self._folder = folder
        self._place = place
        self._left_out = left_out.resolve() if left_out else None
        self._max_bytes = max_bytes
        self._max_names = max_names
        self._copies = 0
        self.before: Entries = {}
        self.is_whole = False
        """Whether the whole folder was looked at, and not only what the editor changed."""
        self.not_kept = 0
        """Files that did not fit."""
        self.is_too_large = False
        """Whether the folder has too many names to be looked at as a whole."""
        (place / "files").mkdir(mode=0o700, exist_ok=True)

    def before_change(self, parts: Parts) -> None:
        """Keep one file that is about to be changed or made. Raises OSError."""
        if self.is_whole:
            self._keep_late("/".join(parts))
            return
        for end in range(1, len(parts) + 1):  # folders, too: the file may need new ones
            path = "/".join(parts[:end])
            if path not in self.before:
                entry = look_below(self._folder.root, path)
                self.before[path] = self._kept(path, entry) if entry.kind == "file" else entry
        self._save()

    def before_run(self) -> None:
        """Keep the whole folder, once. Raises OSError."""
        if self.is_whole or self.is_too_large:
            return
        found, fitting, self.not_kept = self._look_at_all()
        self.is_too_large = found is None
        if found is None:
            return
        for path in fitting:
            found[path] = self._kept(path, found[path])
        self.before = {**found, **self.before}
        self.is_whole = True
        self._save()

    def outlook(self) -> tuple[bool, int]:
        """What `is_too_large` and `not_kept` would be after `before_run`; nothing is kept yet."""
        found, _, not_kept = self._look_at_all()
        return found is None, not_kept

    def _look_at_all(self) -> tuple[Entries | None, list[str], int]:
        """All names, or None if they are too many; which files fit, and how many do not."""
        names = walk(self._folder.root, self._left_out)
        found = dict(itertools.islice(names, self._max_names + 1))
        if len(found) > self._max_names:
            return None, [], 0
        files = sorted((one.size, path) for path, one in found.items() if one.kind == "file")
        sizes = itertools.accumulate(size for size, _ in files)
        new = [
            (path, size_bytes <= self._max_bytes)
            for (_, path), size_bytes in zip(files, sizes, strict=True)
            if path not in self.before
        ]
        fitting = [path for path, fits in new if fits]
        return found, fitting, len(new) - len(fitting)

    def changes(self) -> dict[str, tuple[Entry, Entry]]:
        """Path -> what was there, and what is there now, where these differ."""
        return changes(self._folder.root, self.before, self.is_whole, self._left_out)

    def save_changes(self) -> dict[str, tuple[Entry, Entry]]:
        """Write down how the run leaves the folder, so that later edits are not undone with it."""
        found = self.changes()
        after = {path: asdict(now) for path, (_, now) in found.items()}
        write_private(self._place / "after.json", json.dumps(after).encode())
        return found

    def _keep_late(self, path: str) -> None:
        """One that did not fit, and that nothing has changed since."""
        old = self.before.get(path, ABSENT)
        if old.kind == "file" and not old.copy and old.looks_like(look(self._folder.root / path)):
            self.before[path] = self._kept(path, old)
            self.not_kept -= 1
            self._save()

    def _kept(self, path: str, entry: Entry) -> Entry:
        self._copies += 1
        name = str(self._copies)
        target = os.fdopen(private_file(self._place / "files" / name), "wb")
        digest = hashlib.sha256()
        try:
            source = (self._folder.root / path).open("rb")
        except OSError:
            target.close()
            return entry  # not readable for us, and so not for the run
        with source, target:
            while block := source.read(_BLOCK):
                digest.update(block)
                target.write(block)
        return replace(entry, sha256=digest.hexdigest(), copy=name)

    def _save(self) -> None:
        manifest = {
            "folder": str(self._folder.root),
            "whole": self.is_whole,
            "entries": {path: asdict(entry) for path, entry in self.before.items()},
        }
        write_private(self._place / "manifest.json", json.dumps(manifest).encode())


def changes(
    root: Path, before: Entries, is_whole: bool, left_out: Path | None = None
) -> dict[str, tuple[Entry, Entry]]:
    """What differs now; entries of files that changed have their digest."""
    now = dict(walk(root, left_out)) if is_whole else {one: look_below(root, one) for one in before}
    found = {}
    for path in sorted({*before, *now}):
        old, new = before.get(path, ABSENT), now.get(path, ABSENT)
        if not old.looks_like(new):
            new = hashed(root / path, new)
            if not old.is_same(new):
                found[path] = (old, new)
    return found


def walk(root: Path, left_out: Path | None = None) -> Iterator[tuple[str, Entry]]:
    """Everything below a folder but sockets and devices; links are not followed."""
    pending = [root]
    while pending:
        place = pending.pop()
        try:
            names = sorted(os.listdir(place))
        except OSError:
            continue  # closed to us: its entry says so by its mode
        for name in names:
            path = place / name
            entry = look(path)
            if path == left_out or entry.kind == "absent":
                continue
            yield str(path.relative_to(root)), entry
            if entry.kind == "folder":
                pending.append(path)


def look(path: Path) -> Entry:
    """What is there; ABSENT for what is no file, link or folder."""
    try:
        found = path.lstat()
        target = os.readlink(path) if stat.S_ISLNK(found.st_mode) else ""
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return ABSENT  # or in a folder that is closed to us, and so to the run
    mode = found.st_mode
    kinds = {stat.S_IFREG: "file", stat.S_IFLNK: "link", stat.S_IFDIR: "folder"}
    kind = kinds.get(stat.S_IFMT(mode))
    if kind is None:
        return ABSENT
    if kind == "folder":
        return Entry(kind=kind, mode=stat.S_IMODE(mode))
    return Entry(
        kind=kind,
        mode=stat.S_IMODE(mode),
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
        inode=found.st_ino,
        target=target,
    )


def look_below(root: Path, path: str) -> Entry:
    """The same for a path in a folder; what a link leads to is no part of the folder."""
    parents = Path(path).parents
    if any((root / parent).is_symlink() for parent in parents if parent.name):
        return ABSENT
    return look(root / path)


def hashed(path: Path, entry: Entry) -> Entry:
    """With the digest of a file; without one where it cannot be read."""
    if entry.kind != "file" or entry.sha256:
        return entry
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            return replace(entry, sha256=hashlib.file_digest(file, "sha256").hexdigest())
    except OSError:
        return entry


def read_entries(text: str) -> Entries:
    """Raises ValueError."""
    try:
        found: dict[str, dict[str, Any]] = json.loads(text)
        return {path: Entry(**fields) for path, fields in found.items()}
    except (TypeError, AttributeError) as error:
        raise ValueError(f"not entries of a checkpoint: {error}") from None
