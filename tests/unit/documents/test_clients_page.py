"""Does docs/clients.md name the versions that `make test-clients` runs, and their tests?"""

import re

from tests.support.places import ROOT

PAGE = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
INSTALLED = re.compile(r'(?:==|", "|version=")(\d+(?:\.\d+)+)"')


def test_the_page_names_every_version_that_is_run() -> None:
    sources = (ROOT / "tests" / "support" / "clients").glob("*.py")
    run = {found for source in sources for found in INSTALLED.findall(source.read_text())}
    assert len(run) > 15
    missing = {version for version in run if not re.search(rf" {version}(?![\d.])", PAGE)}
    assert not missing


def test_the_page_names_every_test() -> None:
    tests = (ROOT / "tests" / "clients").glob("test_*.py")
    missing = sorted(test.name for test in tests if f"tests/clients/{test.name}" not in PAGE)
    assert not missing
