"""What file_editor does to files, and tells about them."""

import json
from pathlib import Path
from typing import Any

import pytest

from expertmesh.agent.contained import Folder
from expertmesh.agent.tools.file_editor import FileEditor
from expertmesh.agent.tools.registry import Registry
from expertmesh.agent.tools.tool import Effect, Result, Status


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    (tmp_path / "outputs").mkdir()
    return tmp_path / "work"


@pytest.fixture
def editor(work: Path) -> FileEditor:
    return FileEditor(Folder(work), work.parent / "outputs")


def names(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


async def use(editor: FileEditor, action: str, path: str, **others: Any) -> Result:
    """As a call of the model: checked against the schema first."""
    arguments = {"action": action, "file_path": path, **others}
    return await editor.call(
        Registry([editor]).check("file_editor", json.dumps(arguments)).arguments
    )


async def test_write_append_edit_and_read(editor: FileEditor, work: Path) -> None:
    assert (await use(editor, "write", "b/a.txt", content="x = 1\n")).text == "made b/a.txt: 1 line"
    result = await use(editor, "append", "b/a.txt", content="y = 2\nz = 3")
    assert result.text == "appended 2 lines to b/a.txt"
    result = await use(editor, "edit", "b/a.txt", old_text="y = 2", new_text="y = 4")
    assert result.text == "edited b/a.txt, line 2"
    result = await use(editor, "read", "b/a.txt")
    assert result.text == (work / "b" / "a.txt").read_text() == "x = 1\ny = 4\nz = 3"
    assert result.sources[0].place == "b/a.txt:1-3"
    assert (await use(editor, "write", "b/a.txt", content="")).text == "replaced b/a.txt: 0 lines"


async def test_view_numbers_lines_and_says_how_many_follow(editor: FileEditor, work: Path) -> None:
    (work / "a.txt").write_text("".join(f"line {n}\x0c\n" for n in range(1, 501)))
    result = await use(editor, "view", "a.txt", start_line=3, end_line=4)
    assert result.text == "     3\tline 3\x0c\n     4\tline 4\x0c\n[496 more lines]"
    assert result.sources[0].place == "a.txt:3-4"
    result = await use(editor, "view", "a.txt")
    assert result.text.count("\n") == 200
    assert (await use(editor, "view", "a.txt", start_line=499)).text.endswith("line 500\x0c")
    assert "has 500 lines" in (await use(editor, "view", "a.txt", start_line=501)).text


async def test_a_long_file_is_read_in_part_with_advice(editor: FileEditor, work: Path) -> None:
    (work / "a.txt").write_text("0123456789\n" * 2000)
    text = (await use(editor, "read", "a.txt")).text
    assert len(text) < 8000
    assert "all of it: a.txt, with action view and start_line" in text


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("a.py", "def f(:\n    pass\n", "The file is not valid now: line 1: invalid syntax"),
        ("a.py", "x = 1\n  y = 2\n", "line 2: unexpected indent"),
        ("a.json", '{"a": 1,}', "The file is not valid now: Expecting property name"),
        ("a.toml", "a = \n", "The file is not valid now: Invalid value"),
        ("a.json", "[" * 100_000, "nested too deeply"),
    ],
)
async def test_a_change_that_breaks_the_syntax_says_so(
    editor: FileEditor, path: str, content: str, words: str
) -> None:
    result = await use(editor, "write", path, content=content)
    assert result.status is Status.OK
    assert words in result.text


@pytest.mark.parametrize(
    ("path", "content"),
    [("a.py", "x = '\\d'\n"), ("a.json", "{}"), ("a.txt", "def f(:"), ("a", "")],
)
async def test_a_sound_change_has_no_warning(editor: FileEditor, path: str, content: str) -> None:
    assert "not valid" not in (await use(editor, "write", path, content=content)).text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"action": "read", "file_path": "none"}, "none: there is no such file"),
        ({"action": "edit", "file_path": "none", "old_text": "a", "new_text": "b"}, "no such"),
        ({"action": "write", "file_path": "a"}, "write needs content"),
        ({"action": "edit", "file_path": "a", "old_text": "x"}, "edit needs new_text"),
        ({"action": "read", "file_path": "../x"}, "outside the work folder"),
        ({"action": "write", "file_path": "/etc/x", "content": ""}, "outside the work folder"),
        ({"action": "write", "file_path": ".git/hooks/x", "content": ""}, "files of git itself"),
        ({"action": "append", "file_path": "s/.GIT/config", "content": ""}, "files of git itself"),
        ({"action": "write", "file_path": "folder", "content": ""}, "Is a directory"),
        ({"action": "read", "file_path": "bytes"}, "not text in UTF-8 (byte 1)"),
        ({"action": "write", "file_path": "@outputs/1.txt", "content": ""}, "only be read"),
        ({"action": "read", "file_path": "@outputs/../work/a"}, "outside"),
        ({"action": "write", "file_path": ".", "content": "x"}, "the work folder itself"),
    ],
)
async def test_what_cannot_be_done_is_explained(
    editor: FileEditor, work: Path, arguments: dict[str, Any], words: str
) -> None:
    (work / "folder").mkdir()
    (work / "bytes").write_bytes(b"a\xff")
    before = names(work)
    result = await editor.call(arguments)
    assert (result.status, words in result.text) == (Status.FAILED, True), result.text
    assert names(work) == before


async def test_a_read_only_run_changes_nothing(work: Path) -> None:
    (work / "a.txt").write_text("old")
    editor = FileEditor(Folder(work), writable=False)
    for action in ("write", "append"):
        assert (await use(editor, action, "a.txt", content="x")).status is Status.REFUSED
    edited = await use(editor, "edit", "a.txt", old_text="old", new_text="new")
    assert edited.status is Status.REFUSED
    assert (await use(editor, "read", "a.txt")).text == "old"
    assert (work / "a.txt").read_text() == "old"


async def test_kept_outputs_can_be_read(editor: FileEditor, work: Path) -> None:
    (work.parent / "outputs" / "1.txt").write_text("all of it")
    assert (await use(editor, "read", "@outputs/1.txt")).text == "all of it"


async def test_a_file_is_kept_before_it_is_changed_and_not_before_a_refused_edit(
    work: Path,
) -> None:
    (work / "a.txt").write_text("old")
    kept: list[tuple[tuple[str, ...], str]] = []
    editor = FileEditor(
        Folder(work),
        before_change=lambda parts: kept.append((parts, (work / "a.txt").read_text())),
    )
    await use(editor, "edit", "a.txt", old_text="none", new_text="x")
    await use(editor, "edit", "a.txt", old_text="old", new_text="new")
    assert kept == [(("a.txt",), "old")]
    assert (work / "a.txt").read_text() == "new"


def test_reading_is_no_writing(editor: FileEditor) -> None:
    effects = {one: editor.effect_of({"action": one}) for one in ("read", "view", "write", "edit")}
    assert effects == {
        "read": Effect.READS,
        "view": Effect.READS,
        "write": Effect.WRITES,
        "edit": Effect.WRITES,
    }
