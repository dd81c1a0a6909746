"""Where does a service get its weights? A checkpoint, a packed folder or a seed, used alike."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from moe_model.backends.backend import Backend
from moe_model.kernels.cpu.packed import TakesExperts
from moe_model.maths.experts import HeldExperts
from moe_model.weights import manifest as manifests
from moe_model.weights.checkpoint import Checkpoint
from moe_model.weights.load_flag import Seeded
from moe_model.weights.manifest import Manifest, ensure_manifest
from moe_model.weights.packed_checkpoint import PackedCheckpoint
from moe_model.weights.packed_header import is_packed
from moe_model.weights.seeded import SeededWeights

log = logging.getLogger(__name__)

Weights = Checkpoint | PackedCheckpoint | SeededWeights


def open_weights(
    folder: Path,
    *,
    partial: bool,
    load: Seeded | None = None,
) -> tuple[Weights, Manifest]:
    """`partial` allows missing pieces; `load`: what to make instead of the folder's weights.

    Raises ValueError with one clear line.
    """
    if load is not None:
        seeded = SeededWeights(folder, load)
        log.warning("the weights are random: --load %s", load)
        return seeded, seeded.manifest
    if not is_packed(folder):
        checkpoint = Checkpoint.open(folder, partial=partial)
        return checkpoint, ensure_manifest(checkpoint)
    packed = PackedCheckpoint(folder)
    if not partial:
        packed.require_experts()
    return packed, packed.manifest


def require_kernels(weights: Weights, backend: Backend) -> None:
    """Raises ValueError if weights are packed and the backend is not one that reads panels."""
    if isinstance(weights, PackedCheckpoint) and backend.why:
        raise ValueError(
            f"{weights.folder}: packed weights are for native kernels, on CPUs or GPUs "
            f"({backend.why}); use the checkpoint that they were made from"
        )


def make_on(weights: Weights, device: str) -> None:
    """From now on make weights from a seed on this device; files are read as before."""
    if isinstance(weights, SeededWeights):
        weights.device = torch.device(device)


def verify_attention(weights: Weights, manifest: Manifest) -> None:
    """Hash what an attention service loads. Raises ValueError when it is not there or damaged."""
    if isinstance(weights, PackedCheckpoint):
        weights.verify_attention()
    elif isinstance(weights, Checkpoint):
        manifests.verify_attention(weights, manifest)


def verify_expert(weights: Weights, manifest: Manifest, layer_idx: int, expert_id: int) -> None:
    """Hash a piece. Raises ValueError when it is another checkpoint's or damaged."""
    if isinstance(weights, PackedCheckpoint):
        weights.verify_expert(layer_idx, expert_id)
    elif isinstance(weights, Checkpoint):
        manifests.verify_piece(weights, manifest, layer_idx, expert_id)


def put_experts(
    weights: Weights,
    held: HeldExperts,
    layer_idx: int,
    slots: Mapping[int, int],
    verify: Callable[[int], None],
    placed: Callable[[], None] = lambda: None,
) -> None:
    """Fill slots with pieces of a layer, expert id -> slot; `verify` gets each id before.

    `placed` is called after each. While one piece is converted, the next is read from the disk.
    """
    ids = list(slots)
    for number, expert_id in enumerate(ids):
        for soon in ids[number + 1 : number + 2]:
            _read_ahead(weights, layer_idx, soon)
        verify(expert_id)
        put_expert(weights, held, slots[expert_id], layer_idx, expert_id)
        placed()


def _read_ahead(weights: Weights, layer_idx: int, expert_id: int) -> None:
    if isinstance(weights, PackedCheckpoint):
        weights.read_ahead(layer_idx, expert_id)
    elif isinstance(weights, Checkpoint):
        weights.read_ahead(weights.names.expert(layer_idx, expert_id).values())


def put_expert(
    weights: Weights, held: HeldExperts, slot: int, layer_idx: int, expert_id: int
) -> None:
    """Fill a slot with a piece: mapped if the weights are packed, otherwise converted."""
    if isinstance(weights, PackedCheckpoint):
        assert isinstance(held, TakesExperts), "`require_kernels` was asked"
        weights.put_expert(held, slot, layer_idx, expert_id)
        return
    held.put(slot, weights.stored_expert(layer_idx, expert_id))
    if isinstance(weights, Checkpoint):
        # The mapped pages were copied; without them, resident memory is the held weights alone.
        weights.release(weights.names.expert(layer_idx, expert_id).values())
