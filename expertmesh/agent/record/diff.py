"""What did a run change? A line for each file, and a unified diff of the text files."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from expertmesh.agent.record.checkpoint import Entry

MAX_TEXT_BYTES = 1 << 20


@dataclass(frozen=True)
class Changed:
    """One name that differs."""

    path: str
    what: str
    """added, changed or removed."""
    added: int = 0
    removed: int = 0
    """Lines, of text files."""

    def line(self) -> str:
        counts = f" (+{self.added} -{self.removed})" if self.added or self.removed else ""
        return f"{self.what} {self.path}{counts}"


def compare(
    root: Path, copies: Path, found: dict[str, tuple[Entry, Entry]]
) -> tuple[list[Changed], str]:
    """Of the entries before and after: the list, and the diff."""
    listed, texts = [], []
    for path, (old, new) in found.items():
        if "folder" in (old.kind, new.kind) and "file" not in (old.kind, new.kind):
            continue
        what = "added" if old.kind == "absent" else "removed"
        what = what if "absent" in (old.kind, new.kind) else "changed"
        lines = list(_diff(path, _lines(copies / old.copy, old), _lines(root / path, new)))
        added = sum(line.startswith("+") for line in lines[2:])
        removed = sum(line.startswith("-") for line in lines[2:])
        listed.append(Changed(path, what, added, removed))
        texts += lines
    return listed, "".join(texts)


def _diff(path: str, old: list[str] | None, new: list[str] | None) -> Iterator[str]:
    if old is None or new is None:
        yield f"Binary or large file {path} differs\n"
        return
    for line in difflib.unified_diff(old, new, f"a/{path}", f"b/{path}"):
        yield line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"


def _lines(path: Path, entry: Entry) -> list[str] | None:
    """None for what is not text of a moderate size; a link is the line of its target."""
    if entry.kind == "link":
        return [f"-> {entry.target}\n"]
    if entry.kind != "file":
        return []
    if entry.size > MAX_TEXT_BYTES or not path.is_file():
        return None
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return None if "\0" in text else text.splitlines(keepends=True)
