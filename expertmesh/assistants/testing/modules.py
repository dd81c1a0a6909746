"""How is a file imported in its project, and where do its tests belong?"""

from dataclasses import dataclass
from pathlib import Path

_MARKS = ("pyproject.toml", "setup.py", "setup.cfg", "tox.ini", "pytest.ini", ".git", ".hg")


@dataclass(frozen=True)
class Module:
    """A Python file of a project."""

    root: Path
    """The project's folder."""
    file: str
    """Path below it."""
    imports: str
    """The folder below it from which the module is imported; "." for itself."""
    name: str
    """Dotted, as it is imported from there."""


def module_of(path: Path, root: Path | None = None) -> Module:
    """`root`: None for the nearest folder above with a project's files, else the file's own.

    Raises ValueError if the file is not below the root, or has no name that can be imported.
    """
    path = path.resolve()
    top = path.parent
    while (top / "__init__.py").is_file() and top != top.parent:
        top = top.parent
    root = root.resolve() if root is not None else _project(top)
    if not top.is_relative_to(root):
        raise ValueError(f"--root: {path} is imported from {top}, which is not below {root}")
    parts = path.relative_to(top).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    if path.suffix != ".py" or not parts or not all(part.isidentifier() for part in parts):
        raise ValueError(f"{path}: not a Python file with a name that can be imported")
    file, imports = (str(one.relative_to(root)) for one in (path, top))
    return Module(root, file, imports, ".".join(parts))


def _project(folder: Path) -> Path:
    home = Path.home()
    for one in (folder, *folder.parents):
        if one == home:
            break
        if any((one / mark).exists() for mark in _MARKS):
            return one
    return folder
