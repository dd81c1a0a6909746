"""How a file is imported in its project."""

import os
from pathlib import Path

import pytest

from expertmesh.assistants.testing.modules import module_of


def made(folder: Path, *names: str) -> Path:
    """Files; a blank stands between a folder's name and what is in it."""
    for name in names:
        path = folder.joinpath(*name.split())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder.joinpath(*names[-1].split())


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("pyproject.toml", "a.py"), ("a.py", ".", "a")),
        (("pyproject.toml", "src p __init__.py", "src p a.py"), ("src p a.py", "src", "p.a")),
        (("setup.py", "p __init__.py"), ("p __init__.py", ".", "p")),
        (("pytest.ini", "lib a.py"), ("lib a.py", "lib", "a")),
    ],
)
def test_a_file_is_imported_from_above_its_packages(
    tmp_path: Path, names: tuple[str, ...], found: tuple[str, str, str]
) -> None:
    module = module_of(made(tmp_path, *names))
    assert (module.file.replace(os.sep, " "), module.imports, module.name) == found
    assert module.root == tmp_path


def test_the_root_can_be_said_and_must_be_above(tmp_path: Path) -> None:
    path = made(tmp_path, "other x.py", "sub p __init__.py", "sub p a.py")
    assert module_of(path, tmp_path).file.split(os.sep) == ["sub", "p", "a.py"]
    with pytest.raises(ValueError, match="is not below"):
        module_of(path, tmp_path / "other")
    with pytest.raises(ValueError, match="is not below"):
        module_of(path, tmp_path / "sub/p")


@pytest.mark.parametrize("name", ["a.txt", "my-script.py", "2.py"])
def test_what_cannot_be_imported_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="can be imported"):
        module_of(made(tmp_path, "setup.cfg", name))
