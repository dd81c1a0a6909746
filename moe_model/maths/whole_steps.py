"""Steps from token ids to logits in one go, for a device that holds all layers and all experts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from moe_model.maths.linear import LinearWeight
from moe_model.maths.step_meta import StepMeta

Pick = Callable[[Tensor, Tensor], Tensor]
"""(float32 logits [B, V], controls [columns, B]) -> int64 ids [B], -1 if open; in graphs, too."""


@dataclass(frozen=True, kw_only=True)
class OuterWeights:
    """What lies before the first layer and after the last."""

    embedding_VD: Tensor
    final_norm_D: Tensor
    lm_head_VD: LinearWeight
    frequencies: Tensor  # moe_model.maths.rope


class WholeStep(Protocol):
    """A step on its way. Its tensors may be read once `wait` has returned, until the next step
    begins; what is not a tensor, until the step after that does.
    """

    @property
    def hidden_TD(self) -> Tensor:
        """All rows after the last layer."""

    @property
    def logits_BV(self) -> Tensor:
        """float32: of `meta.logit_rows_B`; ids without a token are not masked."""

    def wait(self) -> None:
        """Block until it is computed."""

    def device_s(self) -> float:
        """How long the device took, once `wait` has returned; 0: it was not timed."""

    def is_done(self) -> bool:
        """Whether `wait` would return at once."""

    def picked(self) -> list[int]:
        """A token id for each row of logits; -1: they are not finite, or it is open."""

    def chosen(self) -> np.ndarray:
        """int32 [L, T, K]: every layer's topk_ids_TK."""


class WholeSteps(Protocol):
    """Starts steps, one after the other."""

    def warm_up(self, most_rows: int, most_decode: int, num_controls: int) -> Iterator[int]:
        """Compile what steps of so many rows need; yields how many kinds of steps are left.

        To be run through before the first step, with nothing in the cache.

        Args:
            most_decode: rows of a step without chunks.
            num_controls: see `start`.
        """

    def is_short(self, meta: StepMeta, controls: np.ndarray | None = None) -> bool:
        """Whether `start` only sends it off, and the device is done within milliseconds.

        `start` may be called from any thread, one at a time: what it makes at the first step of a
        size is there for all.
        """

    def start(self, meta: StepMeta, controls: np.ndarray | None = None) -> WholeStep:
        """`meta` is on the host. The last step must have ended: `wait` has returned, or `is_done`.

        A decode step that `is_short` may also follow one that is still under way, if that is one,
        too, and the step before it has ended. A token id below 0 stands for what the last step
        picks: -1 for its first row's, -2 for its second's; if that is -1, for any token.

        Args:
            controls: float64 [columns, B], for the `Pick` of each row of logits; None: its best.
        """
