"""Weights from a seed: equal wherever they are made, all different, and like real ones."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from moe_model import reference
from moe_model.backends.choice import choose_backend
from moe_model.config import ModelConfig
from moe_model.maths.linears import PlainLinears
from moe_model.maths.routing import route
from moe_model.moved import num_moves
from moe_model.quant import StoredExpert
from moe_model.reference import ReferenceModel
from moe_model.tiny import FIRST, write_tiny
from moe_model.weights.load_flag import parse_load
from moe_model.weights.open import open_weights, put_expert, verify_attention, verify_expert
from moe_model.weights.seeded import SeededWeights
from moe_model.weights.seeded_numbers import draw, normal_levels

PLAIN = PlainLinears(torch.float32)
BLOCKS = {"hidden_size": 256, "intermediate_size": 384, "num_local_experts": 7}
"""Sizes of whole blocks: six matrices come of one."""


def folder_with(folder: Path, **overrides: Any) -> Path:
    """A folder with config.json alone."""
    folder.mkdir(exist_ok=True)
    raw = {**FIRST.tiny_config(True), **overrides}
    (folder / "config.json").write_text(json.dumps(raw))
    return folder


def seeded(folder: Path, load: str = "random:7", **overrides: Any) -> SeededWeights:
    found = parse_load(load)
    assert found is not None
    return SeededWeights(folder_with(folder, **overrides), found)


def digest(*tensors: torch.Tensor | None) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        if tensor is not None:
            found.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def digest_of(expert: StoredExpert) -> str:
    matrices = (expert.w1, expert.w3, expert.w2)
    return digest(*(part for one in matrices for part in (one.values, one.scales)))


def pieces(config: ModelConfig) -> list[tuple[int, int]]:
    return [(la, e) for la in range(config.num_layers) for e in range(config.num_experts)]


GOLDEN = {
    "drawn": "ec0bc4538f5f023e",
    "expert": "f28d9dde6792fe7f",
    "qkv": "34dfda1bfc62a61e",
    "routing": "31f5923af02014dd",
    "norms": "ca8e38d067e884d3",
    "embedding": "719ca2db4708698a",
    "id": "random-8026847f3",
}
"""Digests of what generator 1 makes."""


def test_the_generator_is_the_one_of_its_version(tmp_path: Path) -> None:
    """Every process, machine and device makes these. If they change, so must GENERATOR."""
    weights = seeded(tmp_path, "random:7,skew=1", **BLOCKS)
    held = weights.layer(1, PLAIN)
    assert isinstance(held.qkv_AD, torch.Tensor)
    assert isinstance(held.routing_ED, torch.Tensor)
    assert {
        "drawn": digest(draw("key", (3, 1_500_001), torch.arange(256), "cpu")),
        "expert": digest_of(weights.stored_expert(2, 6)),
        "qkv": digest(held.qkv_AD),
        "routing": digest(held.routing_ED, held.bias_E),
        "norms": digest(held.input_norm_D, held.q_norm),
        "embedding": digest(weights.outer("embedding", torch.bfloat16)),
        "id": weights.manifest.checkpoint_id[:16],
    } == GOLDEN


@pytest.mark.parametrize("sizes", [{}, BLOCKS])
def test_pieces_are_the_same_in_any_order_and_all_different(
    tmp_path: Path, sizes: dict[str, int]
) -> None:
    one, other = seeded(tmp_path, **sizes), seeded(tmp_path, **sizes)
    every = pieces(one.config)
    made = {piece: digest_of(one.stored_expert(*piece)) for piece in every}
    assert {p: digest_of(other.stored_expert(*p)) for p in reversed(every)} == made
    assert digest_of(seeded(tmp_path, **sizes).stored_expert(2, 3)) == made[2, 3]
    for key in ("w1", "w3", "w2"):
        found = [getattr(one.stored_expert(*piece), key).values for piece in every]
        assert len({digest(values) for values in found}) == len(every)
    foreign = seeded(tmp_path, "random:8", **sizes)
    assert not {digest_of(foreign.stored_expert(*piece)) for piece in every} & set(made.values())


def test_layers_differ_and_are_the_same_again(tmp_path: Path) -> None:
    one, other = seeded(tmp_path), seeded(tmp_path)

    def digests(weights: SeededWeights, layer_idx: int) -> dict[str, str]:
        held = weights.layer(layer_idx, PLAIN)
        return {k: digest(v) for k, v in vars(held).items() if isinstance(v, torch.Tensor)}

    first, second = digests(one, 0), digests(one, 1)
    assert digests(other, 1) == second
    assert all(first[key] != second[key] for key in first if key != "bias_E")  # zeros: no skew


def test_few_masters_are_drawn_where_blocks_can_be_moved() -> None:
    assert num_moves(1536, 3072) == 12 * 24  # M2: 56 masters for its 15,872 experts
    assert num_moves(1400, 3072) == 24
    assert num_moves(40, 48) == 1


def test_drawn_numbers_are_normal_and_independent() -> None:
    levels = torch.tensor(normal_levels())
    rows = draw("one", (4, 200_001), levels, "cpu")
    other = draw("other", (4, 200_001), levels, "cpu")
    assert abs(rows.mean()) < 0.005
    assert abs(rows.square().mean() - 1) < 0.005
    assert abs(rows.pow(4).mean() - 3) < 0.3
    for product in (rows[0] * rows[1], rows[0, 1:] * rows[0, :-1], rows[0] * other[0]):
        assert abs(product.mean()) < 0.01


def test_activations_keep_their_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Residuals begin with 1 and end under 2 through 40 layers, and experts add their share."""
    sizes = {"hidden_size": 96, "intermediate_size": 64, "num_local_experts": 4}
    weights = seeded(tmp_path, **sizes, num_hidden_layers=40)
    residuals, added = [], []

    def recorded(residual_TD: torch.Tensor, combined_TD: torch.Tensor) -> torch.Tensor:
        residuals.append(residual_TD.square().mean().sqrt().item())
        added.append(combined_TD.square().mean().sqrt().item() * 80**0.5)
        return residual_TD + combined_TD

    monkeypatch.setattr(reference, "from_combine", recorded)
    logits = ReferenceModel(weights).logits(list(range(3, 43)))
    assert all(0.8 < size < 2 for size in residuals)
    assert all(0.3 < size < 3 for size in added)
    assert 0.5 < logits.std() < 2


def hottest(folder: Path, load: str) -> float:
    """Share of all choices that fall on the busiest eighth of the experts."""
    sizes = {"hidden_size": 128, "num_local_experts": 64, "num_experts_per_tok": 4}
    weights = seeded(folder, load, **sizes)
    held = weights.layer(0, PLAIN)
    rows = draw("rows", (2000, 128), torch.tensor(normal_levels()), "cpu")
    ids, mixed = route(rows, held.routing_ED, held.bias_E, 4)
    assert torch.allclose(mixed.sum(-1), torch.ones(2000))
    counts = torch.bincount(ids.flatten(), minlength=64).sort(descending=True).values
    return float(counts[:8].sum() / counts.sum())


def test_routing_is_spread_or_as_skewed_as_asked_for(tmp_path: Path) -> None:
    shares = [hottest(tmp_path, f"random:3,skew={skew}") for skew in (0, 0.5, 1, 5)]
    assert shares[0] < 0.2  # an eighth, were it quite even
    assert shares == sorted(shares)
    assert shares[1] > 0.25
    assert shares[3] > 0.9


def test_skew_changes_the_bias_alone_and_the_id(tmp_path: Path) -> None:
    spread, skewed = seeded(tmp_path), seeded(tmp_path, "random:7,skew=2")
    assert digest_of(spread.stored_expert(1, 1)) == digest_of(skewed.stored_expert(1, 1))
    assert spread.layer(0, PLAIN).bias_E is not None
    assert not spread.layer(0, PLAIN).bias_E.any()  # type: ignore[union-attr]
    assert skewed.layer(0, PLAIN).bias_E.any()  # type: ignore[union-attr]
    assert spread.manifest.checkpoint_id != skewed.manifest.checkpoint_id


def test_the_id_is_of_the_config_seed_and_skew_and_says_random(tmp_path: Path) -> None:
    ids = {
        seeded(tmp_path, load, num_hidden_layers=layers).manifest.checkpoint_id
        for load in ("random:1", "random:2", "random:1,skew=1")
        for layers in (2, 3)
    }
    assert len(ids) == 6
    assert all(one.startswith("random-") for one in ids)
    assert seeded(tmp_path).manifest.checkpoint_id == seeded(tmp_path).manifest.checkpoint_id


def test_experts_are_held_like_those_of_a_checkpoint(tmp_path: Path) -> None:
    weights, manifest = open_weights(
        folder_with(tmp_path), partial=True, load=parse_load("random:7")
    )
    assert isinstance(weights, SeededWeights)
    verify_attention(weights, manifest)
    verify_expert(weights, manifest, 0, 1)
    assert weights.holds_expert(2, 7)
    for dtype, weight_format in ((torch.float32, "f32"), (torch.bfloat16, "int4")):
        backend = choose_backend(dtype)
        held = backend.room_for_experts(1, weights.config, weight_format)
        put_expert(weights, held, 0, 0, 1)
        row = torch.ones(1, weights.config.hidden_size, dtype=dtype)
        nothing = torch.zeros(1, dtype=torch.int64)
        assert held.sums(row, nothing, nothing, torch.ones(1)).isfinite().all()


def test_weights_in_the_folder_are_not_read(tmp_path: Path) -> None:
    without = seeded(tmp_path)
    write_tiny(tmp_path, fp8=True)
    (tmp_path / "model.safetensors.index.json").write_text("no JSON")
    beside = seeded(tmp_path)
    assert digest_of(beside.stored_expert(0, 0)) == digest_of(without.stored_expert(0, 0))


def test_what_cannot_be_made_is_refused(tmp_path: Path) -> None:
    load = parse_load("random:7,skew=1")
    assert load is not None
    with pytest.raises(ValueError, match="not a folder"):
        SeededWeights(tmp_path / "nowhere", load)
    with pytest.raises(ValueError, match=r"config\.json"):
        SeededWeights(tmp_path, load)
    with pytest.raises(ValueError, match="no routing bias to skew"):
        seeded(tmp_path, "random:7,skew=1", use_routing_bias=False)
    (tmp_path / "expertmesh_packed.json").write_text("{}")
    with pytest.raises(ValueError, match="packed weights"):
        seeded(tmp_path)
