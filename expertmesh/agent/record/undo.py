"""How is a work folder put back as it was before a run? Only what the run changed, and only where
nobody has changed it since."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from expertmesh.agent.contained import Folder, Parts
from expertmesh.agent.record.checkpoint import (
    ABSENT,
    Entries,
    Entry,
    changes,
    hashed,
    look_below,
    read_entries,
)
from expertmesh.agent.record.run_folder import RunFolder


@dataclass(frozen=True)
class Kept:
    """The checkpoint of a run, read from its folder."""

    folder: Path
    before: Entries
    after: Entries | None
    """What the run changed, as it left it; None if it did not end in order."""
    is_whole: bool


@dataclass
class Undone:
    """What `undo` did, by path."""

    restored: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    """Changed by somebody since the run: nothing was done to any file."""
    lost: list[str] = field(default_factory=list)
    """Changed by the run, but too large to have been kept."""


def read_checkpoint(run: RunFolder) -> Kept | None:
    """None if the run changed nothing that it had to keep. Raises ValueError."""
    path = run.checkpoint / "manifest.json"
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_text())
        before = read_entries(json.dumps(manifest["entries"]))
        after_path = run.checkpoint / "after.json"
        after = read_entries(after_path.read_text()) if after_path.exists() else None
        return Kept(Path(manifest["folder"]), before, after, manifest["whole"] is True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.parent} cannot be read: {error}") from None


def undo(run: RunFolder, *, force: bool = False) -> Undone:
    """Put back what the run changed; with conflicts nothing, unless `force`.

    Raises ValueError if the checkpoint cannot be read, and OSError.
    """
    kept, done = read_checkpoint(run), Undone()
    if kept is None:
        return done
    folder = Folder(kept.folder)
    wanted = _wanted(kept, folder, done, force=force)
    if done.conflicts and not force:
        return done
    _put_back(folder, run.checkpoint / "files", wanted, done)
    return done


def _wanted(kept: Kept, folder: Folder, done: Undone, *, force: bool) -> Entries:
    """What has to be put back."""
    if kept.after is None:  # it was killed: what differs is the run's, or somebody's
        found = changes(folder.root, kept.before, kept.is_whole)
        if not force:
            done.conflicts += found
        return {path: old for path, (old, _) in found.items()}
    wanted = {}
    for path, after in kept.after.items():
        before = kept.before.get(path, ABSENT)
        now = hashed(folder.root / path, look_below(folder.root, path))
        if now.is_same(before):
            continue
        if not now.is_same(after) and not _is_only_mode(before, now):
            done.conflicts.append(path)
        wanted[path] = before
    return wanted


def _is_only_mode(before: Entry, now: Entry) -> bool:
    """A folder is still one: nothing of anybody's is lost when its mode is put back."""
    return before.kind == now.kind == "folder"


def _put_back(folder: Folder, copies: Path, wanted: Entries, done: Undone) -> None:
    paths = sorted(wanted, key=lambda path: path.count("/"))
    for path in paths:  # a closed folder must be open before anything in it can be put back
        if wanted[path].kind == "folder" and look_below(folder.root, path).kind == "folder":
            folder.set_mode(_parts(path), wanted[path].mode)
    for path in reversed(paths):
        _remove(folder, path, wanted[path], done)
    for path in paths:
        entry = wanted[path]
        if entry.kind == "file" and not entry.copy:
            done.lost.append(path)
            continue
        if path not in done.conflicts or entry.kind != "absent":
            _make(folder, copies, path, entry)
            done.restored.append(path)


def _remove(folder: Folder, path: str, entry: Entry, done: Undone) -> None:
    """What is in the way: all but a file for a file, and a folder for a folder."""
    now = look_below(folder.root, path)
    if now.kind in ("absent", entry.kind) and now.kind != "link":
        return
    if entry.kind == "file" and not entry.copy:
        return  # it cannot be put back, so what is there stays
    try:
        folder.remove(_parts(path))
    except OSError:  # a folder that is not empty: somebody's new files are in it
        done.conflicts.append(path)


def _make(folder: Folder, copies: Path, path: str, entry: Entry) -> None:
    parts = _parts(path)
    if entry.kind == "folder":
        folder.make_folder(parts, entry.mode)
    elif entry.kind == "link":
        folder.make_link(parts, entry.target)
    elif entry.kind == "file":
        data = (copies / entry.copy).read_bytes()
        folder.write(parts, data, entry.mode)
        folder.set_time(parts, entry.mtime_ns)


def _parts(path: str) -> Parts:
    return tuple(path.split("/"))
