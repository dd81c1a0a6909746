"""A second family needs a folder and a line in the table: its checkpoints load by its own names."""

from pathlib import Path

import pytest
import torch

from attention_svc.vocabulary import Vocabulary
from moe_model.families.known import FAMILIES, chat_format_with, load_config, parse_config
from moe_model.families.minimax_m2.family import MINIMAX_M2
from moe_model.reference import ReferenceModel
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from moe_model.weights.manifest import build_manifest, config_digest, save_manifest
from moe_model.weights.partial import LocalSource, wanted_shards, write_parts
from tests.support.gateway.model import byte_tokenizer
from tests.support.moe_model.toy_family import ROLE, TOY, TOY_CONFIG

MARKERS = {text: (300 + i, True) for i, text in enumerate(TOY.chat_format.markers)}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "toy", TOY)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    write_tiny(tmp_path / "toy", seed=3, family=TOY)
    return tmp_path / "toy"


def test_equal_numbers_under_other_names_are_the_same_model(toy: Path, tmp_path: Path):
    write_tiny(tmp_path / "m2", seed=3)
    mine, m2 = Checkpoint.open(toy), Checkpoint.open(tmp_path / "m2")
    assert mine.shard_of("floor1/part2/gate")
    assert not m2.shard_of("floor1/part2/gate")
    ids = [1, 5, 9, 300]
    logits = ReferenceModel(mine).logits(ids)
    assert torch.equal(logits, ReferenceModel(m2).logits(ids))


def test_what_is_missing_has_the_familys_name(toy: Path):
    with pytest.raises(ValueError, match="floor3/input_norm is missing"):
        config_with_more_layers(toy)


def config_with_more_layers(folder: Path) -> Checkpoint:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"depth": 3', '"depth": 4'))
    return Checkpoint.open(folder)


def test_a_part_of_its_checkpoint_belongs_to_the_whole(toy: Path, tmp_path: Path):
    whole, part = Checkpoint.open(toy), tmp_path / "part"
    part.mkdir()
    (part / "config.json").write_bytes((toy / "config.json").read_bytes())
    save_manifest(build_manifest(whole), part / "expertmesh_manifest.json")
    shards = wanted_shards(whole.config, {1: [2]}, attention=False)
    assert [size > 0 for _, size in write_parts(part, LocalSource(whole), shards)] == [True]
    assert Checkpoint.open(part, partial=True).holds_expert(1, 2)


def test_the_family_does_not_change_the_digest_of_a_config():
    m2 = parse_config(MINIMAX_M2.tiny_config(False))
    assert config_digest(m2) == config_digest(parse_config(TOY_CONFIG))


def test_ids_that_end_an_answer_are_the_familys(toy: Path):
    import json

    (toy / "tokenizer.json").write_text(json.dumps(byte_tokenizer(MARKERS)))
    assert Vocabulary.load(toy, load_config(toy)).default_stops == {2, MARKERS[ROLE][0]}
    (toy / "tokenizer.json").write_text(json.dumps(byte_tokenizer({"<|turn|>": (300, True)})))
    with pytest.raises(ValueError, match=r"lacks .*<\|over\|>"):
        Vocabulary.load(toy, load_config(toy))


def test_a_client_knows_the_format_by_the_markers_of_the_server():
    assert chat_format_with(MARKERS) is TOY.chat_format
    assert chat_format_with(MINIMAX_M2.chat_format.markers) is MINIMAX_M2.chat_format
    assert chat_format_with(()) is MINIMAX_M2.chat_format
