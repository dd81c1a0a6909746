"""What a pool holds is what the manifest says, laid out as the computation expects."""

from pathlib import Path

import pytest
import torch

from expert_svc.weight_store import HeldLayer, WeightStore
from moe_model.backends.choice import choose_backend
from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.experts import NativeExperts, PanelExperts, UnpackedExperts
from moe_model.tiny import write_tiny
from moe_model.weights import open as open_module
from moe_model.weights.checkpoint import Checkpoint
from moe_model.weights.manifest import build_manifest
from moe_model.weights.pack_checkpoint import PackJob, write_packed
from moe_model.weights.packed_checkpoint import PackedCheckpoint
from moe_model.weights.safetensors_file import SafetensorsFile
from rpc.mesh.pieces import Pieces
from tests.support.moe_model.tiny_sizes import FEW_PIECES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny(tmp_path / "model", seed=2, fp8=True, **FEW_PIECES)
    return tmp_path / "model"


def store_of(folder: Path, dtype: torch.dtype = torch.float32) -> WeightStore:
    checkpoint = Checkpoint.open(folder)
    return WeightStore(checkpoint, build_manifest(checkpoint), choose_backend(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_pieces_are_stacked_in_ascending_id_and_found_by_slot(folder: Path, dtype: torch.dtype):
    store, checkpoint = store_of(folder, dtype), Checkpoint.open(folder)
    store.load(Pieces([(1, 4), (1, 0)]))
    store.load(Pieces([(1, 2), (1, 0)]))  # more of the same layer, one held already
    held = store.layer(1)
    assert held is not None
    assert held.slots_E.tolist() == [0, -1, 1, -1, 2]
    for expert_id in (0, 2, 4):
        assert_holds(held, expert_id, checkpoint, dtype)
    assert store.layer(0) is None
    assert store.pieces == Pieces([(1, 0), (1, 2), (1, 4)])
    assert store.size_bytes == 3 * store.piece_bytes
    # bfloat16 lies in panels of 32 outputs.
    matrices = {torch.float32: 3 * 24 * 20 * 4, torch.bfloat16: 2 * (2 * 32 * 24 + 32 * 20)}
    assert store.piece_bytes == matrices[dtype]


def assert_holds(
    held: HeldLayer, expert_id: int, checkpoint: Checkpoint, dtype: torch.dtype
) -> None:
    """What the expert computes is what its matrices in the checkpoint give."""
    w13, w2 = checkpoint.expert(1, expert_id, torch.float32)
    rows = torch.randn(30, 24, generator=torch.Generator().manual_seed(expert_id))
    gate, up = (rows @ w13.t()).chunk(2, dim=-1)
    expected = (torch.nn.functional.silu(gate) * up) @ w2.t()
    slots = torch.full((30,), int(held.slots_E[expert_id]))
    got = held.weights.rows(rows.to(dtype), torch.arange(30), slots, torch.ones(30))
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2 * float(expected.abs().max())
    torch.testing.assert_close(got.float(), expected, atol=tolerance, rtol=tolerance)


def test_a_damaged_piece_is_refused_by_name_and_nothing_of_its_layer_changes(folder: Path):
    store = store_of(folder)
    store.load(Pieces([(0, 1)]))
    before = store.layer(0)
    (shard,) = folder.glob("*.safetensors")
    damage(shard, "model.layers.0.block_sparse_moe.experts.3.w2.weight")
    with pytest.raises(ValueError, match="layer 0 expert 3 differs from expertmesh_manifest"):
        store.load(Pieces([(0, 2), (0, 3)]))
    assert store.layer(0) is before
    assert store.pieces == Pieces([(0, 1)])
    store.load(Pieces([(0, 2), (1, 3)]))  # the sound ones are still to be had


def damage(shard: Path, name: str) -> None:
    """Flip one bit of a stored tensor, in place: the file stays mapped."""
    file = Checkpoint.open(shard.parent)._files[name]
    with open(shard, "r+b") as raw:
        raw.seek(file.entries[name].start)
        (value,) = raw.read(1)
        raw.seek(file.entries[name].start)
        raw.write(bytes([value ^ 1]))


def test_a_computation_that_started_before_keeps_its_stack(folder: Path):
    store = store_of(folder)
    store.load(Pieces([(0, 1)]))
    before = store.layer(0)
    assert before is not None
    kept = before.weights.w2_EDF[0].clone()
    store.load(Pieces([(0, 0)]))
    assert store.layer(0) is not before
    assert torch.equal(before.weights.w2_EDF[0], kept)
    assert before.slots_E.tolist() == [-1, 0, -1, -1, -1]


def test_each_new_piece_is_told_and_each_layer(folder: Path):
    store = store_of(folder)
    store.load(Pieces([(0, 1)]))
    told: list[str] = []
    store.load(Pieces.all_of(2, 5), lambda: told.append("layer"), lambda: told.append("piece"))
    assert told == [*["piece"] * 4, "layer", *["piece"] * 5, "layer"]
    assert store.available() == Pieces.all_of(2, 5)


def test_loading_stops_after_the_layer_in_which_it_is_told_to(folder: Path):
    store = store_of(folder)

    def stop() -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        store.load(Pieces.all_of(2, 5), stop)
    assert store.pieces == Pieces.all_of(1, 5)


@pytest.mark.parametrize("weight_format", ["bf16", "fp8", "int8", "int4", "int4_g128"])
def test_a_format_is_loaded_piece_by_piece_and_moves_without_a_copy(
    folder: Path, weight_format: str
):
    checkpoint = Checkpoint.open(folder)
    store = WeightStore(
        checkpoint,
        build_manifest(checkpoint),
        choose_backend(torch.bfloat16),
        weight_format=weight_format,
    )
    store.load(Pieces([(1, 1), (1, 3)]))
    before = store.layer(1)
    assert before is not None
    if isinstance(before.weights, (NativeExperts, UnpackedExperts)):
        kept = before.weights.packed.get_packed(1)
        store.load(Pieces([(1, 0)]))
        after = store.layer(1)
        assert after is not None
        moved = after.weights.packed.get_packed(2)
        assert [one.data.data_ptr() for one in moved] == [one.data.data_ptr() for one in kept]
        held = [after.weights.packed.get_packed(slot) for slot in range(3)]
        assert sum(one.data.numel() for pair in held for one in pair) == store.size_bytes
    store.load(Pieces.all_of(2, 5))
    assert store.size_bytes == 10 * store.piece_bytes


def test_a_format_for_another_compute_dtype_is_refused(folder: Path):
    checkpoint = Checkpoint.open(folder)
    with pytest.raises(ValueError, match="--expert-dtype int8 computes in bf16"):
        WeightStore(
            checkpoint,
            build_manifest(checkpoint),
            choose_backend(torch.float32),
            weight_format="int8",
        )


@pytest.mark.skipif(library.load() is None, reason="packed weights are for the native kernels")
def test_packed_weights_compute_the_same_and_are_not_copied(folder: Path, tmp_path: Path):
    checkpoint = Checkpoint.open(folder)
    manifest = build_manifest(checkpoint)
    made = PackJob(source=checkpoint, manifest=manifest, format="int8", linear_format="bf16")
    write_packed(made, tmp_path / "packed")
    packed = PackedCheckpoint(tmp_path / "packed")
    assert packed.manifest.checkpoint_id == manifest.checkpoint_id
    stores = [
        WeightStore(packed, packed.manifest, choose_backend(torch.bfloat16)),
        WeightStore(checkpoint, manifest, choose_backend(torch.bfloat16), weight_format="int8"),
    ]
    rows, each = torch.randn(4, 24).bfloat16(), torch.arange(4)
    found = []
    for store in stores:
        store.load(Pieces([(1, 1), (1, 3)]))
        store.load(Pieces([(1, 2)]))
        held = store.layer(1)
        assert held is not None
        assert store.available() == Pieces.grid(range(2), range(5))
        slots = torch.tensor([0, 1, 2, 1])
        found.append(held.weights.rows(rows, each, slots, torch.ones(4)))
        if store is stores[0]:
            mapped, _ = packed.expert(1, 2)
            assert isinstance(held.weights, PanelExperts)
            kept, _ = held.weights.packed.get_packed(1)
            assert kept.data.data_ptr() == mapped.data.data_ptr()
    assert torch.equal(*found)
    with pytest.raises(ValueError, match=r"--expert-dtype fp8: .* is packed in int8"):
        WeightStore(packed, packed.manifest, choose_backend(torch.bfloat16), weight_format="fp8")


def test_the_next_piece_is_read_while_one_is_converted(folder: Path, monkeypatch):
    store, seen = store_of(folder), []
    monkeypatch.setattr(
        SafetensorsFile, "read_ahead", lambda self, name: seen.append(("soon", name))
    )
    put = open_module.put_expert

    def noted(*args) -> None:
        seen.append(("put", args[-1]))
        put(*args)

    monkeypatch.setattr(open_module, "put_expert", noted)
    store.load(Pieces([(1, 1)]))
    assert seen == [("put", 1)]
    store.load(Pieces([(1, 0), (1, 1), (1, 3)]))
    assert [what for what, _ in seen[1:]] == ["soon"] * 6 + ["put"] * 2  # with scales
    assert all(".layers.1." in name and ".experts.3." in name for _, name in seen[1:7])
    assert seen[7:] == [("put", 0), ("put", 3)]


def test_reading_ahead_takes_tensors_anywhere_in_a_file(folder: Path):
    for path in folder.glob("*.safetensors"):
        file = SafetensorsFile(path)
        for name in file.entries:
            file.read_ahead(name)
