"""Which texts are in a folder? Links are not followed, and hidden files are left out."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from expertmesh.agent.web.html_text import read_html

MAX_FILES = 20_000
MAX_FILE_BYTES = 4 << 20
_NOT_ENTERED = frozenset({"node_modules", "__pycache__", "venv", "site-packages"})
_HTML = frozenset({".html", ".htm", ".xhtml"})
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Document:
    """One file, as far as it tells whether it has changed."""

    path: str
    """Relative to the folder, with slashes."""
    size_bytes: int
    changed_ns: int


def documents(root: Path) -> Iterator[Document]:
    """The regular files below the folder, sorted, at most MAX_FILES. Raises OSError for itself."""
    count = 0
    os.stat(root)
    for folder, names, files, handle in os.fwalk(root):
        names[:] = sorted(
            name for name in names if not name.startswith(".") and name not in _NOT_ENTERED
        )
        for name in sorted(files):
            if name.startswith("."):
                continue
            found = os.stat(name, dir_fd=handle, follow_symlinks=False)
            if not stat.S_ISREG(found.st_mode):
                continue
            path = os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")
            yield Document(path, found.st_size, found.st_mtime_ns)
            count += 1
            if count == MAX_FILES:
                return


def read_document(root: Path, document: Document) -> str | None:
    """Its text, of HTML what it says; None if it has none, is too large or is gone."""
    if document.size_bytes > MAX_FILE_BYTES:
        return None
    try:
        data = _read(root, document.path)
    except OSError:
        return None  # it went away or changed into something else since it was seen
    if len(data) > MAX_FILE_BYTES or b"\0" in data:
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return read_html(text, "").text if is_html(document.path) else text


def is_html(path: str) -> bool:
    """Whether a document's lines are not those of its file."""
    return os.path.splitext(path)[1].lower() in _HTML


def _read(root: Path, path: str) -> bytes:
    """By folders, so that none that became a link since leads outside."""
    *folders, name = path.split("/")
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below = os.open(folder, flags, dir_fd=handle)
            os.close(handle)
            handle = below
        with os.fdopen(os.open(name, _FILE, dir_fd=handle), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return b"\0"
            return file.read(MAX_FILE_BYTES + 1)
    finally:
        os.close(handle)
