"""How does a setup get into a client's files, and out of them? Planned as a whole, then done."""

from dataclasses import dataclass, replace
from pathlib import Path

from expertmesh.connect import disk
from expertmesh.connect.client import ConfigFile, Setup
from expertmesh.connect.formats.by_name import FORMATS, name_of
from expertmesh.connect.formats.format import UnmergeableError
from expertmesh.connect.merge import merge, unmerge
from expertmesh.connect.record import Record, Written, digest_of


@dataclass(frozen=True)
class Planned:
    """One file as it is and as it is to be."""

    path: Path
    """What links lead to."""
    old: str | None
    new: str | None
    """None: there is to be no file."""
    written: Written | None
    """What the record is to say of it."""

    @property
    def changes(self) -> bool:
        return self.old != self.new


class CannotMergeError(Exception):
    """A file that was left alone; the message names it and says why."""


def content(file: ConfigFile) -> str:
    """What the file is where there is none yet."""
    return merge(file.kind, "", file.wanted)[0]


def plan(setup: Setup, client: str, scope: Path, record: Record) -> list[Planned]:
    """What writing this would do. Raises CannotMergeError, before anything is written."""
    return [_planned(file, client, str(scope.resolve()), record) for file in setup.files]


def plan_removal(client: str, scope: Path, record: Record) -> list[Planned]:
    """What taking out what was written would do. Raises CannotMergeError."""
    place = str(scope.resolve())
    mine = {
        path: one
        for path, one in record.files.items()
        if one.client == client and place in one.scopes
    }
    return [_removal(Path(path), one, place) for path, one in mine.items()]


def carry_out(planned: list[Planned], record: Record, *, private: bool) -> dict[Path, Path]:
    """Do it. Returns for each changed file that was there before where a copy of it is now.
    Raises OSError."""
    copies: dict[Path, Path] = {}
    for one in planned:
        known = record.files.get(str(one.path))
        written = one.written
        if one.changes and one.old is not None:
            copies[one.path] = disk.keep_copy(record.backups, one.path, one.old)
            if known is None and written is not None:
                written = replace(written, backup=str(copies[one.path]))
        if one.new is None:
            disk.remove(one.path, [Path(folder) for folder in known.folders] if known else [])
        elif one.changes:
            disk.replace(one.path, one.old, one.new, private=private)
        elif private and one.path.stat().st_mode & 0o077:
            one.path.chmod(one.path.stat().st_mode & 0o700)
        if written is None:
            record.files.pop(str(one.path), None)
        else:
            record.files[str(one.path)] = written
        record.save()  # after each: if the next one fails, this one can still be undone
    return copies


def _planned(file: ConfigFile, client: str, scope: str, record: Record) -> Planned:
    path = file.path.resolve()
    try:
        old = disk.read(path)
        known = record.files.get(str(path)) if old is not None else None
        new, trace = merge(file.kind, old or "", file.wanted, known.trace if known else None)
    except UnmergeableError as error:
        raise CannotMergeError(f"{path} cannot be merged safely: {error}") from None
    if known is None:
        folders = tuple(map(str, disk.missing_folders(path)))
        written = Written(
            client=client,
            scopes=(scope,),
            kind=name_of(file.kind),
            digest=digest_of(new),
            exact=True,
            existed=old is not None,
            backup=None,
            folders=folders,
            trace=trace,
        )
    else:
        written = replace(
            known,
            scopes=tuple(sorted({*known.scopes, scope})),
            digest=digest_of(new),
            exact=known.exact and known.digest == digest_of(old or ""),
            trace=trace,
        )
    return Planned(path, old, new, written)


def _removal(path: Path, known: Written, scope: str) -> Planned:
    scopes = tuple(one for one in known.scopes if one != scope)
    try:
        old = disk.read(path)
        if scopes and old is not None:  # somebody else still needs it
            return Planned(path, old, old, replace(known, scopes=scopes))
        return Planned(path, old, None if old is None else _without_ours(old, known), None)
    except UnmergeableError as error:
        raise CannotMergeError(f"{path} cannot be changed safely: {error}") from None


def _without_ours(old: str, known: Written) -> str | None:
    """The text as it was, or what is left of it without our values; None for no file."""
    if known.exact and known.digest == digest_of(old):
        if not known.existed:
            return None
        before = disk.read(Path(known.backup)) if known.backup else None
        if before is not None:
            return before
    text = unmerge(FORMATS[known.kind], old, known.trace)
    is_bare = "".join(text.split()) in ("", "{}")  # not even a comment
    return None if is_bare and not known.existed else text
