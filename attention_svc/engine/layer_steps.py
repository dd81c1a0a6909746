"""A step's rows on their way through the layers: one object, from the embedding to the last layer.

`NativeStep` (moe_model/kernels/cpu/step.py) is the other implementation: for a few rows on the native kernels.
"""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from attention_svc.activations import StepIds
from attention_svc.engine.native_attention import paged_rows
from attention_svc.engine.step import StepMeta
from attention_svc.kv.cache import KvCache
from attention_svc.kv.paged_attention import DecodePlan, attend_chunk, attend_decode, plan_decode
from moe_model.config import ModelConfig
from moe_model.kernels.cpu.attention import PagedRows, attend_paged
from moe_model.maths.layer import Layer, from_combine, up_to_dispatch
from moe_model.maths.row_maths import RowMaths


class LayerSteps(Protocol):
    """To be called with the layers in their order, two calls each."""

    @property
    def hidden_TD(self) -> Tensor:
        """After the last `from_combine`."""

    @property
    def combined_TD(self) -> Tensor:
        """float32: where the experts' sums of the layer go, before `from_combine`."""

    def up_to_dispatch(self, layer_idx: int) -> tuple[Tensor, Tensor, Tensor]:
        """dispatch_TD, topk_ids_TK, topk_weights_TK (moe_model.maths.layer); stores keys and values.

        A layer's tensors are to be used up before the next layer is asked for its own.
        """

    def from_combine(self) -> None:
        """Add the experts' sums to the layer's residual."""

    def chosen(self) -> StepIds:
        """Of all layers so far, on the host."""


class PlainStep:
    """One function after another, on any device, in any layout."""

    def __init__(
        self,
        layers: Sequence[Layer],
        cache: KvCache,
        config: ModelConfig,
        maths: RowMaths,
        meta: StepMeta,
        hidden_TD: Tensor,
        cos_T: Tensor,
        sin_T: Tensor,
        *,
        attends_natively: bool,
    ):
        self.hidden_TD = hidden_TD
        self.combined_TD = torch.empty_like(hidden_TD, dtype=torch.float32)
        self._residual_TD = hidden_TD
        self._layers, self._cache, self._config, self._maths = layers, cache, config, maths
        self._meta = meta
        self._chosen: list[Tensor] = []
        self._cos_sin = (cos_T, sin_T)
        self._plan: DecodePlan | PagedRows | None = None
        if attends_natively:
            self._plan = paged_rows(meta)
        elif meta.num_decode:
            self._plan = plan_decode(meta.decode_tables_BW, meta.decode_lens_B, cache.block_size)

    @torch.inference_mode()
    def up_to_dispatch(self, layer_idx: int) -> tuple[Tensor, Tensor, Tensor]:
        def attend(q_THP: Tensor, k_TGP: Tensor, v_TGP: Tensor) -> Tensor:
            self._cache.store(layer_idx, k_TGP, v_TGP, self._meta.slot_mapping_T)
            if isinstance(self._plan, PagedRows):
                pages = self._cache.pages(layer_idx)
                return attend_paged(q_THP, *pages, self._config.num_kv_heads, self._plan)
            return self._attend(layer_idx, q_THP, self._plan)

        self._residual_TD, *dispatched = up_to_dispatch(
            self.hidden_TD, self._layers[layer_idx], *self._cos_sin, attend
        )
        dispatch_TD, topk_ids_TK, topk_weights_TK = dispatched
        self._chosen.append(topk_ids_TK)
        return dispatch_TD, topk_ids_TK, topk_weights_TK

    def from_combine(self) -> None:
        self.hidden_TD = from_combine(self._residual_TD, self.combined_TD, self._maths)

    def chosen(self) -> list[np.ndarray]:
        return [ids_TK.cpu().numpy() for ids_TK in self._chosen]

    def _attend(self, layer_idx: int, q_THP: Tensor, plan: DecodePlan | None) -> Tensor:
        """Decode rows in one batch, then each chunk over its own context."""
        meta = self._meta
        gather = partial(self._cache.gather, layer_idx)
        parts: list[Tensor] = []
        if plan is not None:
            parts.append(attend_decode(q_THP[: meta.num_decode], plan, gather))
        for chunk in meta.chunks:
            parts.append(
                attend_chunk(
                    q_THP[chunk.rows], chunk.num_cached, chunk.block_table_W,
                    self._cache.block_size, gather,
                )
            )  # fmt: skip
        return parts[0] if len(parts) == 1 else torch.cat(parts)
