"""What is written has M2's format and reads back unchanged."""

from pathlib import Path

import pytest
import torch

from demo_model import checkpoint_format, network
from demo_model.network import Shape
from moe_model.reference import ReferenceModel
from moe_model.weights.checkpoint import Checkpoint
from tests.support.moe_model.trained_network import SHAPE, logits_of

TOKENS = {"bos_token_id": 1, "eos_token_id": 2}


def odd_weights(shape: Shape) -> network.Weights:
    torch.manual_seed(3)
    made = network.initial(shape, seed=3)
    made["head"] = torch.randn(made["head"].shape)
    made["bias"] = 0.1 * torch.randn(made["bias"].shape)
    return made


def test_blocks_round_trip_within_the_precision_of_e4m3() -> None:
    weight = torch.randn(3, 150, 300)
    codes, scales = checkpoint_format.to_blocks(weight)
    assert codes.dtype == torch.float8_e4m3fn
    assert scales.shape == (3, 2, 3)
    back = checkpoint_format.from_blocks(codes, scales)
    peak = weight.abs().max()
    assert ((back - weight).abs() <= weight.abs() / 16 + peak / 448 / 64).all()


def test_rounding_twice_changes_nothing_more() -> None:
    once = checkpoint_format.rounded(torch.randn(130, 130))
    torch.testing.assert_close(checkpoint_format.rounded(once), once, rtol=1e-6, atol=0)


def test_a_block_of_zeros_has_a_finite_scale() -> None:
    codes, scales = checkpoint_format.to_blocks(torch.zeros(128, 128))
    assert float(scales) == 1.0
    assert not checkpoint_format.from_blocks(codes, scales).any()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkpoint_format.save(odd_weights(SHAPE), SHAPE, TOKENS, tmp_path)
    return tmp_path


def test_a_saved_checkpoint_loads_as_the_rounded_weights(folder: Path) -> None:
    weights, shape = checkpoint_format.load(folder)
    assert shape == SHAPE
    original = odd_weights(SHAPE)
    for name, value in weights.items():
        expected = original[name]
        if name in network.MATRICES:
            expected = checkpoint_format.rounded(expected)
        elif name not in ("gate", "bias"):
            expected = expected.bfloat16().float()
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


def test_the_reference_model_computes_the_same_logits_from_it(folder: Path) -> None:
    weights, _ = checkpoint_format.load(folder)
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    served = ReferenceModel(Checkpoint.open(folder)).logits(ids)
    torch.testing.assert_close(served, logits_of(weights, ids), rtol=1e-4, atol=1e-4)


def test_a_second_save_leaves_no_old_shards(folder: Path) -> None:
    (folder / "model-00009-of-00009.safetensors").write_bytes(b"old")
    checkpoint_format.save(odd_weights(SHAPE), SHAPE, TOKENS, folder)
    assert [f.name for f in folder.glob("*.safetensors")] == ["model-00001-of-00001.safetensors"]
