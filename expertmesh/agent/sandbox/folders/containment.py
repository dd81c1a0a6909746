"""Is a path inside a folder?"""

from collections.abc import Iterable
from pathlib import Path


def is_within(path: Path, folder: Path) -> bool:
    """Whether an absolute path without `..` and symbolic links is the folder or lies below it."""
    return path == folder or folder in path.parents


def is_writable(path: Path, roots: Iterable[Path], protected: Iterable[Path]) -> bool:
    """Whether what has this path may be changed, removed, moved or replaced.

    It is below a root, not protected itself, and does not hold what is protected, since whoever
    moves a folder away can put another one in its place. Some file systems take `.GIT` for `.git`.
    """
    if not any(path != root and is_within(path, root) for root in roots):
        return False
    folded = _folded(path)
    return not any(
        is_within(folded, one) or is_within(one, folded) for one in map(_folded, protected)
    )


def _folded(path: Path) -> Path:
    return Path(str(path).casefold())


def folder_within(work_dir: Path, folder: str) -> Path:
    """The real path of a folder that is given relative to the work folder.

    Raises ValueError if it is none, or outside.
    """
    try:
        found = (work_dir / folder).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:  # missing, a ring of links, a null byte
        raise ValueError(f"folder {folder!r}: {error}") from None
    if not is_within(found, work_dir):
        raise ValueError(f"folder {folder!r} is outside the work folder {work_dir}")
    if not found.is_dir():
        raise ValueError(f"folder {folder!r} is not a folder")
    return found
