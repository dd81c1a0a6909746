"""Lines are at most 120 columns wide in Markdown, and 100 in code, comments and scripts."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.documents import lines, pages
from tests.support.places import ROOT

MARKDOWN_COLUMNS, CODE_COLUMNS = 120, 100
KINDS = {".py", ".c", ".cpp", ".h", ".proto", ".sh", ".yaml", ".yml", ".toml"}
NAMES = {"Makefile", "Dockerfile"}
FOLDERS = sorted(
    {".", *(path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file())}
    | {"bench", "deploy", "examples"}
)
OTHERS_TEXT = {"tests/support/frozen_protos", "tests/support/vllm_scripts"}
"""What is kept as it was written elsewhere, or before."""


@pytest.mark.parametrize("page", pages())
def test_prose_is_at_most_120_columns_wide(page: str) -> None:
    """Except rows of tables, and lines of one unbreakable word, such as a link."""
    wide = [
        f"{page}:{line.number}"
        for line in lines(page)
        if len(line.text) > MARKDOWN_COLUMNS
        and not line.text.lstrip().startswith("|")
        and not re.fullmatch(r"\s*\S+", line.text)
    ]
    assert wide == []


def code_files(folder: str) -> Iterator[Path]:
    """Written by hand, not generated."""
    paths = ROOT.iterdir() if folder == "." else (ROOT / folder).rglob("*")
    for path in paths:
        inside = path.relative_to(ROOT).as_posix()
        of_others = any(inside.startswith(one) for one in OTHERS_TEXT)
        is_code = path.suffix in KINDS or path.name in NAMES
        if is_code and not of_others and "_pb2" not in path.name:
            yield path


@pytest.mark.parametrize("folder", FOLDERS)
def test_code_is_at_most_100_columns_wide(folder: str) -> None:
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted(code_files(folder))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > CODE_COLUMNS
    ]
    assert wide == []
