"""A checkpoint folder: complete, of the right shapes, inside its folder; else one clear line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from moe_model.maths.linears import PlainLinears
from moe_model.quant import dequantise
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from tests.support.moe_model.checkpoint_surgery import (
    INDEX,
    SINGLE,
    W1,
    change_tensors,
    fp8,
    read_index,
    write_index,
    write_small,
)

SCALE = W1 + "_scale_inv"
ROUTING = "model.layers.0.block_sparse_moe.gate.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_small(tmp_path / "model")


def refusal(folder: Path, *, partial: bool = False) -> str:
    """The one line that refuses the folder."""
    with pytest.raises(ValueError, match=r".") as error:
        Checkpoint.open(folder, partial=partial)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("quantised", [True, False])
def test_every_weight_comes_off_the_disk_as_stored(tmp_path: Path, quantised: bool, shards: int):
    folder = write_small(tmp_path / "model", fp8=quantised, shards=shards)
    checkpoint = Checkpoint.open(folder)
    stored = {}
    for path in folder.glob("*.safetensors"):
        stored.update(load_file(path))

    def plain(name: str) -> torch.Tensor:
        tensor = stored[name]
        if tensor.dtype == torch.float8_e4m3fn:
            return dequantise(tensor, stored[name + "_scale_inv"], 128, 128)
        return tensor.float()

    prefix = "model.layers.1."
    w13, w2 = checkpoint.expert(1, 2, torch.float32)
    expert = prefix + "block_sparse_moe.experts.2."
    assert torch.equal(w13, torch.cat((plain(expert + "w1.weight"), plain(expert + "w3.weight"))))
    assert torch.equal(w2, plain(expert + "w2.weight"))
    layer = checkpoint.layer(1, PlainLinears(torch.float32))
    attention = [plain(f"{prefix}self_attn.{key}_proj.weight") for key in "qkv"]
    assert torch.equal(layer.qkv_AD, torch.cat(attention))
    assert torch.equal(layer.o_DA, plain(prefix + "self_attn.o_proj.weight"))
    assert torch.equal(layer.routing_ED, stored[prefix + "block_sparse_moe.gate.weight"])
    assert layer.q_norm is not None
    assert torch.equal(layer.q_norm, plain(prefix + "self_attn.q_norm.weight"))
    for key, name in (
        ("embedding", "model.embed_tokens"),
        ("final_norm", "model.norm"),
        ("lm_head", "lm_head"),
    ):
        assert torch.equal(checkpoint.outer(key, torch.float32), plain(name + ".weight"))


def test_routing_stays_float32_in_a_bfloat16_model(folder: Path):
    layer = Checkpoint.open(folder).layer(0, PlainLinears(torch.bfloat16))
    assert layer.routing_ED.dtype == torch.float32
    assert layer.bias_E is not None
    assert layer.bias_E.dtype == torch.float32
    assert layer.qkv_AD.dtype == torch.bfloat16


def test_loaded_weights_are_the_callers_own(folder: Path):
    checkpoint = Checkpoint.open(folder)
    checkpoint.outer("final_norm", torch.bfloat16).zero_()  # stored in this very dtype
    assert checkpoint.outer("final_norm", torch.bfloat16).any()


def test_a_folder_without_index_may_hold_one_file(folder: Path):
    shutil.move(folder / SINGLE, folder / "model.safetensors")
    (folder / INDEX).unlink()
    assert Checkpoint.open(folder).holds_expert(1, 2)


def test_tensors_that_engines_skip_are_ignored(folder: Path):
    extra = {
        "model.layers.2.enorm.weight": torch.ones(3),
        "model.layers.0.self_attn.k_scale": torch.ones(1),
    }
    change_tensors(folder, lambda tensors: tensors.update(extra))
    assert Checkpoint.open(folder)


DAMAGE: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "a tensor missing": (lambda t: t.pop(W1), W1),
    "a scale missing": (lambda t: t.pop(SCALE), SCALE),
    "routing missing": (lambda t: t.pop(ROUTING), ROUTING),
    "another shape": (lambda t: t.update({W1: fp8(torch.zeros(20, 25))}), W1),
    "transposed": (lambda t: t.update({W1: t[W1].t().contiguous()}), W1),
    "integers": (lambda t: t.update({W1: torch.zeros(20, 24, dtype=torch.int32)}), W1),
    "FP8 routing": (lambda t: t.update({ROUTING: fp8(t[ROUTING])}), ROUTING),
    "scale of another shape": (lambda t: t.update({SCALE: torch.ones(2, 1)}), SCALE),
    "scale of another dtype": (lambda t: t.update({SCALE: torch.ones(1, 1).bfloat16()}), SCALE),
    "a stranger": (
        lambda t: t.update({"model.vision.weight": torch.ones(1)}),
        "model.vision.weight",
    ),
    "an expert too many": (
        lambda t: t.update({W1.replace("experts.2", "experts.3"): t[W1].clone()}),
        "experts.3",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_wrong_tensor_table_is_refused_naming_file_and_tensor(folder: Path, name: str):
    change, tensor = DAMAGE[name]
    change_tensors(folder, change)
    message = refusal(folder)
    assert str(folder) in message
    assert tensor in message


def test_fp8_weights_in_a_model_that_is_not_quantised_are_refused(tmp_path: Path):
    folder = write_small(tmp_path / "model", fp8=False)
    change_tensors(folder, lambda t: t.update({W1: fp8(t[W1]), SCALE: torch.ones(1, 1)}))
    assert W1 in refusal(folder)


VALUES: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "scale 0": (lambda t: t[SCALE].zero_(), SCALE),
    "scale negative": (lambda t: t[SCALE].neg_(), SCALE),
    "scale NaN": (lambda t: t[SCALE].fill_(float("nan")), SCALE),
    "scale infinite": (lambda t: t[SCALE].fill_(float("inf")), SCALE),
    "scale so large that weights overflow": (lambda t: t[SCALE].fill_(3e38), W1),
    "NaN code": (lambda t: t[W1].view(torch.uint8)[3, 4].fill_(0x7F), W1),
    "negative NaN code": (lambda t: t[W1].view(torch.uint8)[0, 0].fill_(0xFF), W1),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_that_would_give_nan_are_refused_when_loaded(folder: Path, name: str):
    change, tensor = VALUES[name]
    change_tensors(folder, change)
    checkpoint = Checkpoint.open(folder)
    checkpoint.expert(0, 0, torch.float32)  # the others are sound
    with pytest.raises(ValueError, match=r"scale|NaN|finite") as error:
        checkpoint.expert(1, 2, torch.float32)
    assert tensor in str(error.value)
    assert SINGLE in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_stored_as_floats_must_be_finite_too(tmp_path: Path, value: float):
    folder = write_small(tmp_path / "model", fp8=False)
    change_tensors(folder, lambda t: t[W1][3, 4].fill_(value))
    change_tensors(folder, lambda t: t[ROUTING][1, 1].fill_(value))
    checkpoint = Checkpoint.open(folder)
    for tensor, load in (
        (W1, lambda: checkpoint.expert(1, 2, torch.float32)),
        (ROUTING, lambda: checkpoint.layer(0, PlainLinears(torch.float32))),
    ):
        with pytest.raises(ValueError, match="finite") as error:
            load()
        assert tensor in str(error.value)


def test_a_missing_or_truncated_shard_is_named(tmp_path: Path):
    folder = write_small(tmp_path / "model", shards=2)
    shard = folder / "model-00002-of-00002.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    assert "truncated" in refusal(folder)
    assert shard.name in refusal(folder)
    shard.unlink()
    assert shard.name in refusal(folder)


def test_shards_that_swapped_their_names_are_refused(tmp_path: Path):
    folder = write_small(tmp_path / "model", shards=2)
    one, two = sorted(folder.glob("*.safetensors"))
    one.rename(folder / "x")
    two.rename(one)
    (folder / "x").rename(two)
    assert "the index places it here" in refusal(folder)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path):
    folder = write_small(tmp_path / "model", shards=2)
    second = folder / "model-00002-of-00002.safetensors"
    index = read_index(folder)
    name = next(name for name, shard in index.items() if shard != second.name)
    tensors = load_file(second)
    tensors[name] = torch.zeros(4)
    save_file(tensors, second)
    assert name in refusal(folder)


def test_a_tensor_that_the_index_does_not_list_is_refused(folder: Path):
    index = read_index(folder)
    del index[W1]
    write_index(folder, index)
    assert W1 in refusal(folder)


@pytest.mark.parametrize("content", ["", "[]", '{"weight_map": {}}', '{"weight_map": [1]}', "{}"])
def test_an_index_without_a_map_is_refused_by_name(folder: Path, content: str):
    (folder / INDEX).write_text(content)
    assert INDEX in refusal(folder)


@pytest.mark.parametrize("shard", [3, None, ["a"], "", ".", "nothing.safetensors", "a\0b", "a\nb"])
def test_an_index_that_points_nowhere_is_refused(folder: Path, shard: object):
    write_index(folder, {**read_index(folder), W1: shard})
    assert str(folder) in refusal(folder)


def test_a_shard_outside_the_folder_is_refused(folder: Path, tmp_path: Path):
    outside = tmp_path / "outside.safetensors"
    shutil.copy(folder / SINGLE, outside)
    for name in ("../outside.safetensors", str(outside), "../model/../outside.safetensors"):
        write_index(folder, dict.fromkeys(read_index(folder), name))
        assert "outside the checkpoint folder" in refusal(folder)


def test_a_link_that_leads_out_is_refused_and_one_within_is_not(folder: Path, tmp_path: Path):
    (folder / SINGLE).rename(tmp_path / "outside")
    (folder / SINGLE).symlink_to(tmp_path / "outside")
    assert "outside the checkpoint folder" in refusal(folder)
    (folder / SINGLE).unlink()
    (tmp_path / "outside").rename(folder / "blob")
    (folder / SINGLE).symlink_to("blob")
    assert Checkpoint.open(folder)


def test_a_folder_that_is_none_is_refused(tmp_path: Path):
    assert "not a folder" in refusal(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert "not a folder" in refusal(tmp_path / "file")


def test_a_partial_checkpoint_shows_what_it_holds(tmp_path: Path):
    folder = write_small(tmp_path / "model", shards=3)
    (folder / "model-00003-of-00003.safetensors").unlink()
    assert "model-00003" in refusal(folder)
    checkpoint = Checkpoint.open(folder, partial=True)
    held = [(l, e) for l in (0, 1) for e in range(3) if checkpoint.holds_expert(l, e)]  # noqa: E741
    assert len(held) < 6
    missing = next((l, e) for l in range(2) for e in range(3) if (l, e) not in held)  # noqa: E741
    with pytest.raises(ValueError, match=r"is missing"):
        checkpoint.expert(*missing, torch.float32)


def test_a_partial_checkpoint_is_still_checked(folder: Path):
    change_tensors(folder, lambda t: t.update({W1: fp8(torch.zeros(20, 25))}))
    assert W1 in refusal(folder, partial=True)


def test_odd_sizes_and_partial_blocks_are_read(tmp_path: Path):
    sizes = {"hidden_size": 130, "intermediate_size": 77, "num_hidden_layers": 1}
    folder = tmp_path / "odd"
    write_tiny(folder, fp8=True, num_local_experts=2, **sizes)
    w13, w2 = Checkpoint.open(folder).expert(0, 1, torch.float32)
    assert (w13.shape, w2.shape) == ((154, 130), (130, 77))
    raw = json.loads((folder / "config.json").read_text())
    assert raw["hidden_size"] % 128
