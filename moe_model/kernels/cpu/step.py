"""A few rows through all native layers: room made once a step, every address asked for once.

Asking tensors (sizes, dtypes, new ones) in each layer would cost a decode step of one row 3 to 8
percent: see docs/cold-caches.md. Same native functions as layer by layer, same bits.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from moe_model.kernels.cpu.attention import PagedRows, page_arguments, row_arguments, takes_tiles
from moe_model.kernels.cpu.layer import NativeLayer
from moe_model.kernels.cpu.library import need
from moe_model.kernels.cpu.rows import check_contiguous

MOST_ROWS = 64
"""More rows compute long enough for their layers to be called one by one, in less memory."""


class NativeSteps:
    """Native layers, and the pages of their keys and values in bfloat16 tiles."""

    def __init__(self, layers: Sequence[NativeLayer], pages: Sequence[tuple[Tensor, Tensor]]):
        """Raises ValueError: no layers, layers of different sizes, or pages that are not tiles."""
        if not layers or len(layers) != len(pages) or len({layer.sizes for layer in layers}) > 1:
            raise ValueError("layers must be of one size, and have a pair of pages each")
        self.sizes = layers[0].sizes
        keys, values = pages[0]
        for layer_keys, layer_values in pages:
            if layer_keys.shape != keys.shape or layer_values.shape != values.shape:
                raise ValueError("the pages of all layers must be of one shape")
        _, num_heads, num_groups, head_dim, _, _ = self.sizes
        if keys.dim() != 5 or not takes_tiles(
            torch.bfloat16, num_heads, num_groups, head_dim, keys.shape[3]
        ):
            raise ValueError("the pages must be tiles that this CPU's kernel reads")
        self._held = (layers, pages)  # what the addresses point to
        self.first_pages = pages[0]
        self._step: NativeStep | None = None
        self.layers = [layer.address for layer in layers]
        self.pages = [(keys.data_ptr(), values.data_ptr()) for keys, values in pages]

    def begin(
        self, hidden_TD: Tensor, cos_T: Tensor, sin_T: Tensor, slots_T: Tensor, rows: PagedRows
    ) -> "NativeStep":
        """A step of these rows; the one before it has ended. Raises what NativeStep.begin does."""
        if self._step is None or self._step.num_rows != hidden_TD.shape[0]:
            self._step = NativeStep(self, hidden_TD.shape[0])
        self._step.begin(hidden_TD, cos_T, sin_T, slots_T, rows)
        return self._step


class NativeStep:
    """Rows on their way; call it with the layers in their order, two calls each.

    `up_to_dispatch` returns the same tensors every time, with new content: they are valid until
    the next layer, or the next step.
    """

    def __init__(self, steps: NativeSteps, num_rows: int):
        """Room for `num_rows`. Raises ValueError: there are none."""
        if num_rows < 1:
            raise ValueError("a step must have rows")
        hidden_size, num_heads, num_groups, head_dim, num_experts, top_k = steps.sizes
        query_size, kv_size = num_heads * head_dim, num_groups * head_dim
        widths = (
            hidden_size,
            hidden_size,
            hidden_size,
            hidden_size,
            query_size + 2 * kv_size,
            query_size,
            kv_size,
            kv_size,
            query_size,
        )
        room = torch.empty((num_rows * sum(widths),), dtype=torch.bfloat16)
        normed, projected, residual, dispatch, qkv, q, k, v, attended = room.split(
            [num_rows * width for width in widths]
        )
        wide = torch.empty((num_rows, hidden_size))
        logits = torch.empty((num_rows, num_experts))
        self.num_rows = num_rows
        self.hidden_TD: Tensor
        self.combined_TD = torch.empty((num_rows, hidden_size))
        """For the experts' float32 sums of a layer; `from_combine` reads it."""
        self._steps = steps
        self._native = need().native
        self._dispatch_TD = dispatch.view(num_rows, hidden_size)
        self._ids_LTK = torch.empty((len(steps.layers), num_rows, top_k), dtype=torch.int32)
        weights_LTK = torch.empty((len(steps.layers), num_rows, top_k))
        self._chosen = list(zip(self._ids_LTK.unbind(), weights_LTK.unbind(), strict=True))
        # One row's values are contiguous already; those of several are copied out.
        self._values = (
            v.view(num_rows, kv_size),
            qkv.view(num_rows, -1)[:, query_size + kv_size :],
        )
        values_at = v.data_ptr() if num_rows > 1 else self._values[1].data_ptr()
        q_THP = q.view(num_rows, num_heads, head_dim)
        kind, tiles, q_at, out_at, _, _, _, *self._pages = page_arguments(
            q_THP, attended, *steps.first_pages, num_groups
        )
        self._queries = (kind, tiles, q_at, out_at, num_rows)
        self._projected = (normed.data_ptr(), qkv.data_ptr(), q.data_ptr(), k.data_ptr())
        self._stored = (k.data_ptr(), values_at)
        self._dispatched = (
            attended.data_ptr(),
            num_rows,
            projected.data_ptr(),
            wide.data_ptr(),
            logits.data_ptr(),
            residual.data_ptr(),
            dispatch.data_ptr(),
        )
        self._residual_at = residual.data_ptr()
        chosen_bytes = 4 * num_rows * top_k
        ids_at, weights_at = self._ids_LTK.data_ptr(), weights_LTK.data_ptr()
        self._layers = [
            (layer, *pages, ids_at + index * chosen_bytes, weights_at + index * chosen_bytes)
            for index, (layer, pages) in enumerate(zip(steps.layers, steps.pages, strict=True))
        ]
        self._room = (room, wide, logits)  # what the addresses point to

    def begin(
        self, hidden_TD: Tensor, cos_T: Tensor, sin_T: Tensor, slots_T: Tensor, rows: PagedRows
    ) -> None:
        """Take the rows before the first layer; `hidden_TD` is changed by the layers.

        Raises:
            ValueError: shapes or dtypes that do not fit.
        """
        hidden_size, _, num_groups, head_dim, _, _ = self._steps.sizes
        num_rows, half = self.num_rows, cos_T.shape[-1]
        for name, tensor, dtype, shape in (
            ("hidden", hidden_TD, torch.bfloat16, (num_rows, hidden_size)),
            ("cos", cos_T, torch.float32, (num_rows, half)),
            ("sin", sin_T, torch.float32, (num_rows, half)),
            ("slots", slots_T, torch.int64, (num_rows,)),
        ):
            check_contiguous(name, tensor, dtype, shape)
        if 2 * half > head_dim:
            raise ValueError(f"cos and sin must have at most {head_dim // 2} numbers")
        keys = self._steps.first_pages[0]
        hidden_at = hidden_TD.data_ptr()
        self.hidden_TD = hidden_TD
        self._project = (
            hidden_at,
            num_rows,
            cos_T.data_ptr(),
            sin_T.data_ptr(),
            half,
            *self._projected,
        )
        self._places = (
            slots_T.data_ptr(),
            num_rows,
            keys.shape[0],
            keys.shape[3],
            num_groups,
            head_dim,
        )
        self._attend = (*self._pages, *row_arguments(rows))
        self._dispatch = (hidden_at, *self._dispatched)
        self._combine = (
            self._residual_at,
            self.combined_TD.data_ptr(),
            1,
            0,
            0,
            num_rows,
            hidden_size,
            hidden_at,
            0,
        )
        self._held = (cos_T, sin_T, slots_T, rows)  # what the addresses point to

    def up_to_dispatch(self, layer_idx: int) -> tuple[Tensor, Tensor, Tensor]:
        """dispatch_TD, topk_ids_TK and topk_weights_TK of the layer (moe_model.maths.layer)."""
        native = self._native
        layer, keys_at, values_at, ids_at, weights_at = self._layers[layer_idx]
        native.project(layer, *self._project)
        if self.num_rows > 1:
            self._values[0].copy_(self._values[1])
        native.store_tiles(*self._stored, keys_at, values_at, *self._places)
        native.attention(*self._queries, keys_at, values_at, *self._attend)
        native.dispatch(layer, *self._dispatch, ids_at, weights_at)
        return self._dispatch_TD, *self._chosen[layer_idx]

    def from_combine(self) -> None:
        """Add `combined_TD` to the layer's residual: the next layer's `hidden_TD`."""
        self._native.norm_rows(*self._combine)

    def chosen(self) -> np.ndarray:
        """int32 [L, T, K]: every layer's topk_ids_TK."""
        return self._ids_LTK.numpy().copy()
