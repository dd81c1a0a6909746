"""A step's rows on their way through the layers: one object, from the embedding to the last layer.

`NativeStep` (moe_model/kernels/cpu/step.py) is the other implementation, for a few rows on the
native kernels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from moe_model.maths.kv_layout import KvPages
from moe_model.maths.layer import Layer, from_combine, up_to_dispatch
from moe_model.maths.paged_attention import PagedAttention
from moe_model.maths.row_maths import RowMaths
from moe_model.maths.step_meta import StepMeta


class LayerSteps(Protocol):
    """Call it with the layers in their order, two calls each."""

    @property
    def hidden_TD(self) -> Tensor:
        """After the last `from_combine`."""

    @property
    def combined_TD(self) -> Tensor:
        """float32: where the experts' sums of the layer go, before `from_combine`."""

    def up_to_dispatch(self, layer_idx: int) -> tuple[Tensor, Tensor, Tensor]:
        """Store keys and values; dispatch_TD, topk_ids_TK, topk_weights_TK (moe_model.maths.layer).

        A layer's tensors are valid until the next layer is asked for its own.
        """

    def from_combine(self) -> None:
        """Add the experts' sums to the layer's residual."""

    def chosen(self) -> Sequence[np.ndarray] | np.ndarray:
        """topk_ids_TK of all layers so far, on the host."""


class Steps(Protocol):
    """Begins steps, one after the other."""

    def warm_up(self, most_rows: int, most_decode: int) -> Iterator[int]:
        """Compile what steps of so many rows need; yields how many kinds of steps are left.

        To be run through before the first step. `most_decode`: rows of a step without chunks.
        """

    def is_ready(self, meta: StepMeta) -> bool:
        """Whether nothing has to be made first, which would take many times as long as the step."""

    def begin(self, hidden_TD: Tensor, cos_T: Tensor, sin_T: Tensor, meta: StepMeta) -> LayerSteps:
        """Take the rows before the first layer, once the last step has ended.

        `hidden_TD` may be used up. `meta` is on the host.
        """


@dataclass(frozen=True)
class PlainSteps:
    """One function after another, on any device, in any layout."""

    layers: Sequence[Layer]
    cache: KvPages
    attention: PagedAttention
    maths: RowMaths

    def warm_up(self, most_rows: int, most_decode: int) -> Iterator[int]:
        return iter(())

    def is_ready(self, meta: StepMeta) -> bool:
        return True

    def begin(self, hidden_TD: Tensor, cos_T: Tensor, sin_T: Tensor, meta: StepMeta) -> "PlainStep":
        return PlainStep(self, hidden_TD, cos_T, sin_T, meta.to(hidden_TD.device))


class PlainStep:
    """See PlainSteps."""

    def __init__(
        self, steps: PlainSteps, hidden_TD: Tensor, cos_T: Tensor, sin_T: Tensor, meta: StepMeta
    ):
        self.hidden_TD = hidden_TD
        self.combined_TD = torch.empty_like(hidden_TD, dtype=torch.float32)
        self._residual_TD = hidden_TD
        self._steps = steps
        self._slots_T = meta.slot_mapping_T
        self._chosen: list[Tensor] = []
        self._cos_sin = (cos_T, sin_T)
        self._attend = steps.attention.plan(meta)

    @torch.inference_mode()
    def up_to_dispatch(self, layer_idx: int) -> tuple[Tensor, Tensor, Tensor]:
        def attend(q_THP: Tensor, k_TGP: Tensor, v_TGP: Tensor) -> Tensor:
            self._steps.cache.store(layer_idx, k_TGP, v_TGP, self._slots_T)
            return self._attend(layer_idx, q_THP)

        self._residual_TD, dispatch_TD, topk_ids_TK, topk_weights_TK = up_to_dispatch(
            self.hidden_TD, self._steps.layers[layer_idx], *self._cos_sin, attend
        )
        self._chosen.append(topk_ids_TK)
        return dispatch_TD, topk_ids_TK, topk_weights_TK

    def from_combine(self) -> None:
        self.hidden_TD = from_combine(self._residual_TD, self.combined_TD, self._steps.maths)

    def chosen(self) -> list[np.ndarray]:
        return [ids_TK.cpu().numpy() for ids_TK in self._chosen]
