"""Is it the same checkpoint? Every byte that matters changes the id; nothing else does."""

import json
from pathlib import Path

import pytest

from moe_model.weights.checkpoint import Checkpoint
from moe_model.weights.manifest import (
    MANIFEST_NAME,
    build_manifest,
    ensure_manifest,
    load_manifest,
    piece_digest,
    save_manifest,
    verify_attention,
    verify_checkpoint,
)
from tests.support.moe_model.checkpoint_surgery import (
    INDEX,
    SINGLE,
    W1,
    flip_byte,
    read_index,
    write_small,
)


def manifest_of(folder: Path):
    return build_manifest(Checkpoint.open(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_small(tmp_path / "model")


def change_config(folder: Path, **changes: object) -> None:
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, **changes}))


def test_the_id_does_not_depend_on_sharding_or_unused_config_keys(tmp_path: Path):
    one = manifest_of(write_small(tmp_path / "one"))
    folder = write_small(tmp_path / "three", shards=3)
    change_config(folder, transformers_version="9", eos_token_id=[2])
    three = manifest_of(folder)
    assert one == three
    assert len(one.checkpoint_id) == 64


@pytest.mark.parametrize(
    "name",
    [
        W1,
        W1 + "_scale_inv",
        "model.embed_tokens.weight",
        "model.norm.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.q_proj.weight_scale_inv",
        "model.layers.1.block_sparse_moe.gate.weight",
        "model.layers.1.block_sparse_moe.e_score_correction_bias",
    ],
)
def test_one_bit_anywhere_changes_the_id(folder: Path, name: str):
    before = manifest_of(folder)
    flip_byte(folder, name)
    after = manifest_of(folder)
    assert before.checkpoint_id != after.checkpoint_id
    is_piece = ".experts." in name
    assert (before.attention != after.attention) is not is_piece
    changed = [
        (layer, expert)
        for layer in range(2)
        for expert in range(3)
        if before.pieces[layer][expert] != after.pieces[layer][expert]
    ]
    assert changed == ([(1, 2)] if is_piece else [])


@pytest.mark.parametrize(
    "change", [{"rope_theta": 1e4}, {"num_experts_per_tok": 1}, {"rms_norm_eps": 1e-5}]
)
def test_a_config_that_computes_something_else_is_another_checkpoint(folder: Path, change):
    before = manifest_of(folder)
    change_config(folder, **change)
    after = manifest_of(folder)
    assert before.checkpoint_id != after.checkpoint_id
    assert before.pieces == after.pieces


def test_exchanged_pieces_are_another_checkpoint(folder: Path):
    before = manifest_of(folder)
    swapped = [list(row) for row in before.pieces]
    swapped[0][0], swapped[0][1] = swapped[0][1], swapped[0][0]
    pieces = tuple(map(tuple, swapped))
    assert type(before)(config=before.config, attention=before.attention, pieces=pieces) != before
    assert len({digest for row in before.pieces for digest in row}) == 6


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a small checkpoint's manifest is kept."""
    monkeypatch.setattr("moe_model.weights.manifest.KEEP_ABOVE_BYTES", 0)


def test_a_small_checkpoint_is_hashed_anew_and_leaves_no_file(folder: Path):
    before = ensure_manifest(Checkpoint.open(folder))
    assert before == manifest_of(folder)
    assert not (folder / MANIFEST_NAME).exists()
    flip_byte(folder, W1)
    assert ensure_manifest(Checkpoint.open(folder)).checkpoint_id != before.checkpoint_id


@pytest.mark.usefixtures("kept")
def test_a_manifest_survives_its_file(folder: Path):
    checkpoint = Checkpoint.open(folder)
    manifest = ensure_manifest(checkpoint)
    path = folder / MANIFEST_NAME
    assert load_manifest(path, checkpoint.config) == manifest
    assert [p.name for p in folder.iterdir() if p.name.startswith("tmp")] == []
    # The file is used as it is: a piece is checked when it is loaded.
    flip_byte(folder, W1)
    assert ensure_manifest(Checkpoint.open(folder)) == manifest


@pytest.mark.usefixtures("kept")
def test_a_folder_that_cannot_be_written_is_hashed_each_time(folder: Path, monkeypatch, caplog):
    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("moe_model.weights.manifest.save_manifest", refuse)
    assert ensure_manifest(Checkpoint.open(folder)) == manifest_of(folder)
    assert "Permission denied" in caplog.text


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: {},
        lambda raw: {**raw, "pieces": raw["pieces"][:1]},
        lambda raw: {**raw, "pieces": [row[:1] for row in raw["pieces"]]},
        lambda raw: {**raw, "pieces": [["x" * 64] * 3] * 2},
        lambda raw: {**raw, "pieces": "abc"},
        lambda raw: {**raw, "attention": raw["attention"].upper()},
        lambda raw: {**raw, "config": None},
        lambda raw: {**raw, "config": "0" * 64},
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_by_name(folder: Path, damage):
    checkpoint = Checkpoint.open(folder)
    ensure_manifest(checkpoint)
    path = folder / MANIFEST_NAME
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=MANIFEST_NAME) as error:
        load_manifest(path, checkpoint.config)
    assert "model verify" in str(error.value)


def test_a_partial_checkpoint_needs_the_manifest_of_the_whole(tmp_path: Path):
    """What is missing cannot be hashed: an id made without it would be another one."""
    folder = write_small(tmp_path / "model", shards=3)
    whole = manifest_of(folder)
    (folder / "model-00002-of-00003.safetensors").unlink()
    partial = Checkpoint.open(folder, partial=True)
    with pytest.raises(ValueError, match=MANIFEST_NAME):
        ensure_manifest(partial)
    with pytest.raises(ValueError, match="missing"):
        build_manifest(partial)
    assert not (folder / MANIFEST_NAME).exists()
    save_manifest(whole, folder / MANIFEST_NAME)
    manifest = ensure_manifest(partial)
    assert manifest.checkpoint_id == whole.checkpoint_id
    for layer in range(2):
        for expert in range(3):
            if partial.holds_expert(layer, expert):
                assert piece_digest(partial, layer, expert) == manifest.pieces[layer][expert]


def test_attention_weights_are_checked_against_the_manifest(folder: Path):
    checkpoint = Checkpoint.open(folder)
    manifest = ensure_manifest(checkpoint)
    verify_attention(checkpoint, manifest)
    flip_byte(folder, W1)  # a pool's business
    verify_attention(Checkpoint.open(folder), manifest)
    flip_byte(folder, "lm_head.weight")
    with pytest.raises(ValueError, match="attention weights differ"):
        verify_attention(Checkpoint.open(folder), manifest)


@pytest.mark.usefixtures("kept")
def test_verifying_names_the_first_piece_that_differs(folder: Path):
    assert verify_checkpoint(folder) == manifest_of(folder)
    ensure_manifest(Checkpoint.open(folder))
    verify_checkpoint(folder)
    flip_byte(folder, W1, offset=7)
    with pytest.raises(ValueError, match="layer 1 expert 2"):
        verify_checkpoint(folder)
    flip_byte(folder, W1, offset=7)
    flip_byte(folder, "lm_head.weight")
    with pytest.raises(ValueError, match="attention weights"):
        verify_checkpoint(folder)


def test_progress_is_told_by_layer(folder: Path):
    seen: list[tuple[int, int]] = []
    build_manifest(Checkpoint.open(folder), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_the_index_and_the_shard_names_are_no_part_of_the_id(folder: Path):
    before = manifest_of(folder)
    (folder / SINGLE).rename(folder / "all.safetensors")
    index = dict.fromkeys(read_index(folder), "all.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": index}))
    assert manifest_of(folder) == before
