"""Tensors that say they are not on the CPU, and note which threads compute with them."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from moe_model.maths.layer_steps import LayerSteps, Steps
from moe_model.maths.step_meta import StepMeta

USES: list[tuple[str, str]] = []
"""(operator, thread) of all far tensors."""
_HARMLESS = ("shape", "dtype", "device", "dim", "size")


class Far(Tensor):
    """Whatever is computed with one is one; copied to other tensors it is on the CPU."""

    is_cpu = False

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", str(func))
        with torch._C.DisableTorchFunctionSubclass():
            found = func(*args, **(kwargs or {}))
        owner = getattr(getattr(func, "__self__", None), "__name__", "")
        if name != "__get__" or owner not in _HARMLESS:
            USES.append((name, threading.current_thread().name))
        if name in ("copy_", "cpu") or not isinstance(found, Tensor):
            return found
        return found.as_subclass(cls)


def far(values: Tensor) -> Tensor:
    return values.as_subclass(Far)


class FarStep:
    """A step whose tensors are far."""

    def __init__(self, step: LayerSteps):
        self._step = step
        self.combined_TD = far(step.combined_TD)

    @property
    def hidden_TD(self) -> Tensor:
        return far(self._step.hidden_TD)

    def up_to_dispatch(self, layer_idx: int) -> tuple[Tensor, Tensor, Tensor]:
        found = tuple(far(rows) for rows in self._step.up_to_dispatch(layer_idx))
        return cast(tuple[Tensor, Tensor, Tensor], found)

    def from_combine(self) -> None:
        self.combined_TD.sum()  # a use
        self._step.from_combine()

    def chosen(self) -> Sequence[np.ndarray] | np.ndarray:
        return self._step.chosen()


class FarSteps:
    """Begins `FarStep`s."""

    def __init__(self, steps: Steps, ready: bool):
        self._steps, self._ready = steps, ready

    def is_ready(self, meta: StepMeta) -> bool:
        return self._ready

    def begin(self, hidden_TD: Tensor, cos_T: Tensor, sin_T: Tensor, meta: StepMeta) -> LayerSteps:
        return FarStep(self._steps.begin(hidden_TD, cos_T, sin_T, meta))
