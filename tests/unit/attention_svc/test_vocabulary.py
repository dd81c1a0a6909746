"""What an attention service knows of its checkpoint's tokenizer: holes, stops."""

import json
from pathlib import Path

import pytest

from attention_svc.vocabulary import Vocabulary
from moe_model.families.known import load_config
from moe_model.text.token_table import TokenTable
from moe_model.text.tokenizer import Tokenizer
from tests.support.places import DEMO_MODEL


def copied(folder: Path, *, drop: str = "", **config: object) -> Path:
    for path in DEMO_MODEL.glob("*.json"):
        if "safetensors" not in path.name:
            (folder / path.name).write_bytes(path.read_bytes())
    changed = {**json.loads((folder / "config.json").read_text()), **config}
    (folder / "config.json").write_text(json.dumps(changed))
    if drop:
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        del tokenizer["model"]["vocab"][drop]
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def test_holes_and_rows_above_the_last_token_are_missing(tmp_path: Path):
    whole = TokenTable.load(DEMO_MODEL)
    word, gone = next((t, i) for t, i in vocabulary_of(DEMO_MODEL).items() if i > 1000)
    folder = copied(tmp_path, drop=word, vocab_size=3100)
    loaded = Vocabulary.load(folder, load_config(folder))
    holes = [i for i, data in enumerate(whole.bytes_of_id) if data is None]
    above = range(len(whole.bytes_of_id), 3100)
    assert set(loaded.missing_ids) == {*holes, gone, *above}


def vocabulary_of(folder: Path) -> dict[str, int]:
    return json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]


def test_the_default_stops_are_eos_and_the_role_marker(tmp_path: Path):
    loaded = Vocabulary.load(DEMO_MODEL, load_config(DEMO_MODEL))
    assert loaded.default_stops == {3066, 3065}
    bare = copied(tmp_path)
    (bare / "tokenizer.json").unlink()
    assert Vocabulary.load(bare, load_config(bare)).default_stops == {3066}


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path):
    folder = copied(tmp_path, vocab_size=3060, eos_token_id=2, bos_token_id=1)
    (folder / "generation_config.json").unlink()
    with pytest.raises(ValueError, match=r"ids up to 30.., config.json's vocab_size is 3060"):
        Vocabulary.load(folder, load_config(folder))


def test_the_table_agrees_with_the_tokenizer():
    table, tokenizer = TokenTable.load(DEMO_MODEL), Tokenizer.load(DEMO_MODEL)
    assert [data or b"" for data in table.bytes_of_id] == [
        tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)
    ]
