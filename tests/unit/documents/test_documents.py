"""Files, modules and links that documents, code and the Makefile name are there."""

import importlib
import re
from pathlib import Path

import pytest

from tests.support.documents import lines, pages, paragraphs, spans
from tests.support.places import ROOT

PAGES = pages()
FILE = re.compile(
    r"(?P<name>[\w.*/-]*"
    r"(?:[\w*-]\.(?:py|proto|md|c|cpp|h|yaml|yml|toml|sh|jinja)|Dockerfile|Makefile))"
    r"(?::(?P<line>\d+)|::(?P<test>\w+))?"
)
"""A whole span: a file, `file:line`, or `file::test`."""
LINK = re.compile(r"\]\(([^)\s]+)\)")
PACKAGES = (
    "attention_svc", "bench", "demo_model", "expert_svc", "expertmesh", "gateway", "moe_model",
    "protos", "router_svc", "rpc", "tests",
)  # fmt: skip
SERVICES = ("attention_svc", "expert_svc", "gateway", "router_svc")
DOTTED = re.compile(
    rf"`((?:{'|'.join(PACKAGES)})(?:\.\w+)+)(?:\(\))?`|-m ((?:{'|'.join(PACKAGES)})[.\w]*)"
)
SOURCES = ("*.py", "*.c", "*.cpp", "*.h", "*.proto", "*.yaml", "*.yml", "*.sh", "Dockerfile")
PATH_IN_SOURCE = re.compile(
    r"(?<![\w./~*:$}{-])((?:[\w.-]+/)+[\w-]+\.(?:py|md|proto|c|cpp|h|yaml|yml|toml|sh))\b"
)


def code_files() -> list[Path]:
    """Written by hand: no generated stubs, no frozen protos."""
    folders = [ROOT / name for name in (*PACKAGES, "deploy", "examples")]
    found = {path for folder in folders for kind in SOURCES for path in folder.rglob(kind)}
    return sorted(
        path for path in found if "_pb2" not in path.name and "frozen_protos" not in path.parts
    )


def find(name: str, folders: list[Path]) -> Path | None:
    """The file, or the first that the pattern fits, in the first folder that has it."""
    for folder in folders:
        if found := sorted(folder.glob(name)):
            return found[0]
    return None


def unresolved(page: str) -> list[str]:
    """A name is looked for from the root, beside the page, and beside the files and folders that
    stand before it in its paragraph or row; a bare one may be a file that every service has."""
    wrong = []
    for paragraph in paragraphs(page):
        folders = [ROOT, (ROOT / page).parent]
        for span in spans(paragraph):
            if span.endswith("/") and (ROOT / span).is_dir() and not span.startswith("/"):
                folders.append(ROOT / span)
            match = FILE.fullmatch(span)
            if match is None or span.startswith(("/", ".")):
                continue
            path = find(match["name"], folders)
            if path is None:
                if not all((ROOT / one / match["name"]).is_file() for one in SERVICES):
                    wrong.append(span)
                continue
            folders.append(path.parent)
            text = path.read_text(encoding="utf-8")
            if match["line"] and int(match["line"]) > text.count("\n"):
                wrong.append(span)
            if match["test"] and not re.search(rf"\bdef {match['test']}\(", text):
                wrong.append(span)
    return wrong


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("`gateway/app.py`, `limits.py`", []),
        ("`gateway/app.py`\n\n`limits.py`", ["limits.py"]),
        ("`gateway/` and `limits.py`", []),
        ("its `config.py`", []),
        ("`gateway/application.py`", ["gateway/application.py"]),
        ("`gateway/app.py:3`, `gateway/app.py:9000`", ["gateway/app.py:9000"]),
        ("`gateway/app.py::build`", ["gateway/app.py::build"]),
        ("`moe_model/kernels/cpu/native/*_avx512.cpp`", []),
        ("| `gateway/app.py` |\n| `limits.py` |", ["limits.py"]),
        ("```sh\ncat `nowhere.py`\n```", []),
    ],
)
def test_names_are_looked_for_near_what_stands_before_them(
    text: str, wrong: list[str], tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    assert unresolved(str(page)) == wrong


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page: str) -> None:
    assert unresolved(page) == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in LINK.findall((ROOT / page).read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), link
        if anchor:
            titles = [line.text for line in lines(str(path.resolve().relative_to(ROOT)))]
            assert anchor in {anchor_of(title) for title in titles if title.startswith("#")}, link


def anchor_of(title: str) -> str:
    """As Markdown's readers make it of a heading."""
    return re.sub(r"[^\w -]", "", title.lstrip("# ").lower()).replace(" ", "-")


def exists(dotted: str) -> bool:
    """A module, or what a module holds; only for the latter is it imported."""
    parts = dotted.rstrip(".").split(".")
    for count in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:count])
        if not path.is_dir() and not path.with_suffix(".py").is_file():
            continue
        if count == len(parts):
            return True
        found = importlib.import_module(".".join(parts[:count]))
        for part in parts[count:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_named_modules_exist() -> None:
    """In documents and in the code: `package.module.name`, `python -m package.module`."""
    missing = []
    for path in [*(ROOT / page for page in PAGES), *code_files()]:
        for quoted, run in DOTTED.findall(path.read_text(encoding="utf-8")):
            name = quoted or run
            if not name.endswith((".py", ".md", ".proto", ".pem")) and not exists(name):
                missing.append(f"{path.relative_to(ROOT)}: {name}")
    assert missing == []


def test_files_that_the_code_names_exist() -> None:
    """From the root, beside the file, or from the top of its package. This file invents some."""
    missing = []
    files = [path for path in code_files() if path != Path(__file__).resolve()]
    for path in [*files, ROOT / "Makefile", ROOT / "pyproject.toml"]:
        top = ROOT / path.relative_to(ROOT).parts[0]
        folders = [ROOT, path.parent, top] if top.is_dir() else [ROOT]
        for line in path.read_text(encoding="utf-8").splitlines():
            if "#include" not in line:
                names = PATH_IN_SOURCE.findall(line)
                missing += [
                    f"{path.relative_to(ROOT)}: {name}" for name in names if not find(name, folders)
                ]
    assert missing == []


def test_no_document_names_a_download_address() -> None:
    for page in (*PAGES, "Makefile"):
        hosts = re.findall(r"https?://([\w.-]+)", (ROOT / page).read_text(encoding="utf-8"))
        assert all(re.match(r"127\.|10\.77\.|localhost", host) for host in hosts), (page, hosts)
