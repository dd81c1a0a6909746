"""What is found in a folder, and what never is."""

import os
import stat
from pathlib import Path

import pytest

from expertmesh.agent.retrieval import index as index_module
from expertmesh.agent.retrieval.documents import MAX_FILE_BYTES
from expertmesh.agent.retrieval.index import TextIndex, UnusableIndexError, Update


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs" / "sub").mkdir(parents=True)
    root = tmp_path / "docs"
    (root / "pools.txt").write_text("# Pools\nAn expert pool holds pieces.\n\nMembershipEpoch\n")
    (root / "sub" / "zh.txt").write_text("\u4e13\u5bb6\u6c60\u4fdd\u5b58\u6743\u91cd\u3002\n")
    (root / "other.txt").write_text("Nothing about that, only weather.\n")
    return root


@pytest.fixture
def index(root: Path, tmp_path: Path) -> TextIndex:
    return TextIndex(root, tmp_path / "state" / "index.db")


def places(index: TextIndex, query: str) -> list[str]:
    index.update()
    return [one.place for one in index.search(query, 5)]


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("pool", "pools.txt:1-4"),
        ("expert pieces?", "pools.txt:1-4"),
        ("epoch", "pools.txt:1-4"),
        ("weather", "other.txt:1-1"),
        ("\u6743\u91cd", "sub/zh.txt:1-1"),
        ("\u4e13\u5bb6\u6c60", "sub/zh.txt:1-1"),
        ("zh.txt", "sub/zh.txt:1-1"),
    ],
)
def test_words_parts_of_words_and_chinese_are_found(
    index: TextIndex, query: str, place: str
) -> None:
    assert places(index, query)[:1] == [place]


@pytest.mark.parametrize("query", ["zebra", "", "()", "\u732b"])
def test_what_is_not_there_is_not_found(index: TextIndex, query: str) -> None:
    assert places(index, query) == []


def test_the_better_passage_comes_first(root: Path, index: TextIndex) -> None:
    (root / "a.md").write_text("lease " + "filler " * 100)
    (root / "b.md").write_text("lease renewal of a lease\n")
    assert places(index, "lease renewal")[:2] == ["b.md:1-1", "a.md:1-1"]


def test_it_follows_changes_and_lives_on(root: Path, tmp_path: Path, index: TextIndex) -> None:
    assert index.update() == Update(3, 0)
    (root / "other.txt").write_text("Now about turbines.\n")
    (root / "pools.txt").unlink()
    again = TextIndex(root, tmp_path / "state" / "index.db")
    assert places(again, "turbines") == ["other.txt:1-1"]
    assert places(again, "weather") == []
    assert places(again, "pieces") == []
    assert again.update() == Update(2, 0)


def test_unchanged_files_are_not_read_again(
    index: TextIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.update()
    monkeypatch.setattr(index_module, "read_document", None)
    assert index.update() == Update(3, 0)


def test_links_hidden_files_and_what_is_no_text_are_left_out(
    root: Path, tmp_path: Path, index: TextIndex
) -> None:
    (tmp_path / "secret.txt").write_text("turbine")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    (root / "linked").symlink_to(tmp_path)
    (root / ".env").write_text("turbine")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("turbine")
    (root / "node_modules").mkdir()
    (root / "node_modules" / "a.js").write_text("turbine")
    os.mkfifo(root / "pipe")
    (root / "a.bin").write_bytes(b"turbine\0")
    (root / "latin.txt").write_bytes(b"turbine \xe9")
    (root / "large.txt").write_bytes(b"turbine " * (MAX_FILE_BYTES // 8 + 1))
    assert places(index, "turbine") == []
    assert index.update() == Update(3, 3)


def test_html_is_found_by_what_it_says(root: Path, index: TextIndex) -> None:
    (root / "a.html").write_text("<script>turbine</script><p>A <b>wind</b>mill")
    assert places(index, "turbine") == []
    assert places(index, "windmill") == ["a.html"]


def test_the_text_of_all_files_has_a_limit(
    root: Path, index: TextIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "MAX_TEXT_BYTES", 100)
    held = index.update()
    assert held.num_files + held.left_out == 3
    assert held.left_out >= 1


def test_the_index_is_its_owners_alone(index: TextIndex, tmp_path: Path) -> None:
    index.update()
    path = tmp_path / "state" / "index.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"x" * 99]
)
def test_a_broken_index_is_made_anew(index: TextIndex, tmp_path: Path, content: bytes) -> None:
    index.update()
    (tmp_path / "state" / "index.db").write_bytes(content)
    assert places(index, "weather") == ["other.txt:1-1"]


def test_an_index_of_another_version_is_made_anew(
    index: TextIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.update()
    monkeypatch.setattr(index_module, "_VERSION", 2)
    assert places(index, "weather") == ["other.txt:1-1"]


def test_a_database_that_is_a_link_is_not_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "index.db").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match=r"index\.db"):
        TextIndex(root, tmp_path / "index.db").update()
    assert (tmp_path / "victim").read_text() == "precious"


def test_it_can_be_stopped(index: TextIndex) -> None:
    index.stop()
    with pytest.raises(UnusableIndexError, match="stopped"):
        index.update()


def test_file_names_that_are_no_text_do_not_matter(root: Path, index: TextIndex) -> None:
    with open(os.fsencode(root) + b"/\xff.txt", "w") as file:
        file.write("turbine")
    assert len(places(index, "turbine")) == 1
    assert index.update() == index.update()
