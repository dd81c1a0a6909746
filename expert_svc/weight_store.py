"""Which pieces does this pool hold, and where in memory? Stacked weights per layer.

The weights of a layer are one stack, in ascending expert id and in one weight
format. A layer's stack is replaced as a whole when its set of experts changes, so a
computation that has already started keeps a consistent one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from moe_model.backends.backend import Backend
from moe_model.formats import piece_bytes
from moe_model.gpus import use
from moe_model.maths.experts import HeldExperts
from moe_model.numerics import dtype_name
from moe_model.weights.held_formats import held_formats
from moe_model.weights.manifest import Manifest
from moe_model.weights.open import Weights, put_experts, require_kernels, verify_expert
from rpc.mesh.pieces import Pieces


@dataclass(frozen=True, kw_only=True)
class HeldLayer:
    """One layer's experts. `slots_E`: expert id -> index in the stacks, -1: not held."""

    weights: HeldExperts
    slots_E: np.ndarray  # int64


def available(weights: Weights) -> Pieces:
    """The pieces that these files have."""
    return Pieces(
        (layer_idx, expert_id)
        for layer_idx in range(weights.config.num_layers)
        for expert_id in range(weights.config.num_experts)
        if weights.holds_expert(layer_idx, expert_id)
    )


class WeightStore:
    """Loads pieces from a checkpoint, verifying each against the manifest."""

    def __init__(
        self,
        weights: Weights,
        manifest: Manifest,
        backend: Backend,
        weight_format: str = "auto",
    ):
        """`weight_format`: see moe_model/formats.py.

        Raises ValueError when the backend's dtype or device does not support the format.
        """
        require_kernels(weights, backend)
        self.config = weights.config
        self.backend = backend
        self.dtype, self.device = backend.dtype, backend.device
        self.weight_format = held_formats(
            weights.folder,
            self.config,
            dtype=dtype_name(self.dtype),
            expert_dtype=weight_format,
            device=self.device.type,
        ).experts
        self.calls = backend.expert_calls(self.config, self.weight_format)
        self._weights = weights
        self._manifest = manifest
        self._layers: dict[int, HeldLayer] = {}
        self.pieces = Pieces()

    @property
    def size_bytes(self) -> int:
        """Bytes of weights as held."""
        return self.piece_bytes * len(self.pieces)

    @property
    def piece_bytes(self) -> int:
        return piece_bytes(self.config, self.weight_format, self.device.type)

    def layer(self, layer_idx: int) -> HeldLayer | None:
        """The layer's stack, or None when no expert of it is held."""
        return self._layers.get(layer_idx)

    def available(self) -> Pieces:
        """The pieces that the local checkpoint has."""
        return available(self._weights)

    def load(
        self,
        pieces: Pieces,
        layer_done: Callable[[], None] = lambda: None,
        placed: Callable[[], None] = lambda: None,
    ) -> None:
        """Load the pieces that are not held yet; on any thread, one call at a time.

        Args:
            layer_done: called when a layer can serve; may raise, and then no more is loaded.
            placed: called after each piece.

        Raises:
            ValueError: naming the file and tensor, or the piece whose digest
                differs from the manifest; nothing of that layer is changed.
        """
        use(self.device)
        wanted = pieces - self.pieces
        for layer_idx in wanted.layers:
            held = self._layers.get(layer_idx)
            old = self.pieces.experts(layer_idx)
            ids = sorted({*old, *wanted.experts(layer_idx)})
            self._layers[layer_idx] = self._load_layer(layer_idx, ids, held, placed)
            self.pieces = self.pieces | Pieces.grid((layer_idx,), ids)
            layer_done()

    def unload(self, pieces: Pieces) -> None:
        """Give up pieces; on any thread, but not while another one loads."""
        use(self.device)
        dropped = pieces & self.pieces
        for layer_idx in dropped.layers:
            here = Pieces.grid((layer_idx,), dropped.experts(layer_idx))
            left = (self.pieces - here).experts(layer_idx)
            if left:
                old = self._layers[layer_idx]
                self._layers[layer_idx] = self._load_layer(layer_idx, list(left), old)
            else:
                del self._layers[layer_idx]
            self.pieces = self.pieces - here

    def _load_layer(
        self,
        layer_idx: int,
        ids: list[int],
        held: HeldLayer | None,
        placed: Callable[[], None] = lambda: None,
    ) -> HeldLayer:
        weights = self.backend.room_for_experts(len(ids), self.config, self.weight_format)
        slots_E = np.full(self.config.num_experts, -1, dtype=np.int64)
        new = {}
        for slot, expert_id in enumerate(ids):
            slots_E[expert_id] = slot
            if held is not None and held.slots_E[expert_id] >= 0:
                weights.move(slot, held.weights, int(held.slots_E[expert_id]))
            else:
                new[expert_id] = slot
        verify = partial(verify_expert, self._weights, self._manifest, layer_idx)
        put_experts(self._weights, weights, layer_idx, new, verify, placed)
        self.calls.prepare(weights)
        return HeldLayer(weights=weights, slots_E=slots_E)
