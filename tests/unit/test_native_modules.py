"""Are all native files part of the modules that setup.py builds?"""

import runpy
from typing import Any

import pytest
import setuptools

from tests.support.places import ROOT


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> list[setuptools.Extension]:
    given: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return given["ext_modules"]


def test_no_native_file_is_forgotten(modules: list[setuptools.Extension]) -> None:
    """A source that is left out ends in a module that does not load, a header in a stale one."""
    there = {str(path.relative_to(ROOT)) for path in ROOT.glob("[a-z]*/**/native/*.*")}
    listed = [name for module in modules for name in (*module.sources, *module.depends)]
    assert sorted(listed) == sorted(there)
    compiled = {name for module in modules for name in module.sources}
    assert compiled == {name for name in there if not name.endswith(".h")}


def test_the_package_installs_without_a_compiler(modules: list[setuptools.Extension]) -> None:
    assert all(module.optional for module in modules)
