"""Files that the documents name are there, and links lead somewhere."""

import re

import pytest

from tests.support.places import ROOT

PAGES = ("README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")))
FILE = re.compile(r"`((?:[\w.-]+/)+[\w-]+\.(?:py|proto|md))`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
TARGET = re.compile(r"`make ([a-z-]+)`")


@pytest.mark.parametrize("page", PAGES)
def test_named_files_and_links_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    files = {name for name in FILE.findall(text) if not (ROOT / name).is_file()}
    links = {link for link in LINK.findall(text) if not ((ROOT / page).parent / link).exists()}
    assert not files | links, sorted(files | links)


@pytest.mark.parametrize("page", PAGES)
def test_named_make_targets_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(TARGET.findall((ROOT / page).read_text())) <= targets


def test_no_document_names_a_download_address() -> None:
    for page in (*PAGES, "CHANGELOG.md", "Makefile"):
        hosts = re.findall(r"https?://([\w.-]+)", (ROOT / page).read_text())
        assert all(re.match(r"127\.|10\.77\.|localhost", host) for host in hosts), (page, hosts)
