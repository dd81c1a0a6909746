"""Damaged and hostile tokenizer files are refused with one line that names the file."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moe_model.text import files
from moe_model.text.tokenizer import Tokenizer
from tests.support.moe_model.chat.samples import MARKERS, tokenizer_json, write_checkpoint


def refuse(folder: Path) -> str:
    path = folder / "tokenizer.json"
    with pytest.raises(ValueError, match="^" + re.escape(str(path))) as error:
        Tokenizer.load(folder, MARKERS)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"[" * 200_000, "JSON"),
        (b"[]", "object"),
        (b"{}", "added_tokens"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_files_that_are_no_tokenizer(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    assert reason in refuse(tmp_path)


def test_missing_and_oversized_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cannot be read" in refuse(tmp_path)
    (tmp_path / "tokenizer.json").mkdir()
    assert "cannot be read" in refuse(tmp_path)
    (tmp_path / "tokenizer.json").rmdir()
    monkeypatch.setattr(files, "MAX_TOKENIZER_BYTES", 100)
    (tmp_path / "tokenizer.json").write_bytes(b" " * 101)
    assert "larger than the allowed 100 bytes" in refuse(tmp_path)


def _drop_marker(content: dict[str, Any]) -> None:
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "</think>"]


def _set(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        target: Any = content
        for part in path[:-1]:
            target = target[part]
        target[path[-1]] = value

    return change


def _drop_byte(content: dict[str, Any]) -> None:
    del content["model"]["vocab"]["!"]
    content["model"]["merges"] = []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_drop_marker, "</think>"),
        (_set("version", value="2.0"), "version"),
        (_set("model", "type", value="Unigram"), "BPE"),
        (_set("model", value=None), "BPE"),
        (_set("model", "vocab", value=[]), "vocab"),
        (_set("model", "vocab", "a", value=-1), "vocab"),
        (_set("model", "vocab", "a", value=2**40), "vocab"),
        (_set("model", "vocab", "a", value="7"), "vocab"),
        (_set("model", "vocab", "a", value=0), "same id"),
        (_set("model", "merges", value=["a"]), "merges"),
        (_set("model", "merges", value=[[1, 2]]), "merges"),
        (_set("model", "merges", value=[["zz", "yy"]]), "tokenizers library"),
        (_drop_byte, "256 byte tokens"),
        (_set("pre_tokenizer", value=None), "byte-level"),
        (_set("decoder", value=None), "byte-level"),
        (_set("normalizer", value={"type": "Nonsense"}), "tokenizers library"),
        (
            _set("normalizer", value={"type": "Replace", "pattern": {"Regex": "(a" * 5000}}),
            "longer than",
        ),
        (
            _set(
                "normalizer",
                value={"type": "Replace", "pattern": {"Regex": "("}, "content": "x"},
            ),
            "tokenizers library",
        ),
        (_set("added_tokens", 0, value=5), "added_tokens[0]"),
        (_set("added_tokens", 0, "id", value=-1), "added_tokens[0].id"),
        (_set("added_tokens", 0, "id", value=True), "added_tokens[0].id"),
        (_set("added_tokens", 0, "id", value=2**31), "added_tokens[0].id"),
        (_set("added_tokens", 0, "id", value=5000), "numbers it"),
        (_set("added_tokens", 0, "content", value=""), "added_tokens[0].content"),
        (_set("added_tokens", 0, "rstrip", value=True), "added_tokens[0].rstrip"),
        (_set("added_tokens", 1, "content", value="]~!b["), "repeats"),
        (_set("added_tokens", 0, "id", value=10), "added token"),
    ],
)
def test_damaged_tokenizers(tmp_path: Path, change: Any, reason: str) -> None:
    content = tokenizer_json("separate")
    change(content)
    assert reason in refuse(write_checkpoint(tmp_path, content))


def test_truncation_and_templates_of_the_file_do_not_touch_the_ids(tmp_path: Path) -> None:
    content = tokenizer_json("separate")
    plain = Tokenizer.load(write_checkpoint(tmp_path / "a", content)).encode_text("a b c d e")
    content["truncation"] = {
        "direction": "Right",
        "max_length": 2,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    content["padding"] = {
        "strategy": {"Fixed": 64},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "x",
    }
    assert (
        Tokenizer.load(write_checkpoint(tmp_path / "b", content)).encode_text("a b c d e") == plain
    )


def test_loading_imports_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys, moe_model.text.tokenizer, moe_model.chat.template, "
        "moe_model.chat.messages, moe_model.families.minimax_m2.parser, "
        "moe_model.text.stop_strings; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
