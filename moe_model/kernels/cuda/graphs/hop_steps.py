"""Decode steps whose experts are elsewhere: what lies between two hops is one graph.

The rows for the experts, their ids and weights are written by the graph to memory of the host, as
they travel; their sums are read from there. The host waits once a layer. Rows are filled up to a
graph's with rows of no slot.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from moe_model.kernels.cuda.attention import CudaAttention
from moe_model.kernels.cuda.graphs.captures import Captures
from moe_model.kernels.cuda.graphs.nobody import chunk_of_nobody, chunk_sizes, decode_sizes
from moe_model.kernels.cuda.graphs.step_numbers import Shape, StepNumbers, shape_of
from moe_model.kernels.cuda.step import CudaStep, CudaSteps
from moe_model.maths.layer_steps import LayerSteps
from moe_model.maths.step_meta import StepMeta

log = logging.getLogger(__name__)

MOST_SHAPES = 64
"""Each has a graph for every layer: more than there are up to 64 rows and 32,768 positions."""
GROWTH = 4
"""From one number of items to the next: few shapes, as each costs a graph for every layer."""


class HopSteps:
    """See Steps. Chunks, and more rows than graphs are made for, run kernel by kernel.

    Elsewhere than on a CUDA device nothing is captured.
    """

    def __init__(self, steps: CudaSteps, attention: CudaAttention, device: torch.device):
        self._steps, self._attention, self._device = steps, attention, device
        self._numbers = StepNumbers(steps.cache.pages(0)[0].shape[0], device)
        self._kept: OrderedDict[Shape, HopStep] = OrderedDict()
        self._captures = Captures(device) if device.type == "cuda" else None

    def is_ready(self, meta: StepMeta) -> bool:
        shape = shape_of(meta, growth=GROWTH)
        step = self._kept.get(shape) if shape else None
        return shape is None or (step is not None and step.is_made)

    def begin(self, hidden_TD: Tensor, cos_T: Tensor, sin_T: Tensor, meta: StepMeta) -> LayerSteps:
        shape = shape_of(meta, growth=GROWTH)
        if shape is None:
            return self._steps.begin(hidden_TD, cos_T, sin_T, meta)
        step = self._kept.get(shape)
        if step is None:
            step = self._kept[shape] = HopStep(self, shape, hidden_TD, cos_T)
            if len(self._kept) > MOST_SHAPES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(shape)
        self._numbers.send(meta, None, shape)
        step.begin(hidden_TD, cos_T, sin_T)
        return step

    def warm_up(self, most_rows: int, most_decode: int) -> Iterator[int]:
        """See Steps. Two layers, with the kernels that all have; graphs are made at need."""
        num_layers = len(self._steps.layers)
        decode, chunks = decode_sizes(most_decode), chunk_sizes(most_rows)
        for left, rows in enumerate(reversed(decode)):
            yield len(decode) + len(chunks) - left
            shape = Shape(rows, max(rows, 2))
            self._numbers.send_nobody(shape)
            _run_ends(self.step_of(shape, *self._nobody(rows)), num_layers)
        for left, rows in enumerate(chunks):
            yield len(chunks) - left
            _run_ends(self._steps.begin(*self._nobody(rows), chunk_of_nobody(rows)), num_layers)

    def _nobody(self, num_rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden rows, cosines and sines."""
        config = self._steps.layers[0].config
        hidden_TD = torch.zeros(
            (num_rows, config.hidden_size), dtype=torch.bfloat16, device=self._device
        )
        angles_T = torch.zeros((num_rows, config.rotary_dim // 2), device=self._device)
        return hidden_TD, angles_T, angles_T

    def step_of(self, shape: Shape, hidden_TD: Tensor, cos_T: Tensor, sin_T: Tensor) -> CudaStep:
        """With the numbers of a shape's rows, which are sent by `begin`."""
        given = self._numbers.given(shape)
        attend = self._attention.of_rows(given.decode)
        return CudaStep(self._steps, hidden_TD, cos_T, sin_T, given.slots_T, attend)

    def captured(self, work: Callable[[], None]) -> Callable[[], object]:
        """What does `work` again; it is done once before, and so is compiled."""
        work()
        if self._captures is None:
            return work
        made = self._captures.capture(work)
        return made[0].replay if made else work


def _run_ends(step: CudaStep, num_layers: int) -> None:
    """The first layer and the last, after which nothing is normed."""
    for layer_idx in {0, num_layers - 1}:
        step.up_to_dispatch(layer_idx)
        step.combined_TD.zero_()
        step.from_combine()


class HopStep:
    """See LayerSteps. Its tensors are the same in every layer and every step of this shape, on the
    host: whoever asks for the next layer has had the last one's sums.
    """

    def __init__(self, steps: HopSteps, shape: Shape, like_TD: Tensor, cos_like_T: Tensor):
        rows, device = shape.rows, like_TD.device
        pinned = device.type == "cuda"
        self._hidden_RD = like_TD.new_zeros((rows, like_TD.shape[1]))
        self._cos_R, self._sin_R = (
            cos_like_T.new_zeros((rows, cos_like_T.shape[1])) for _ in range(2)
        )
        self._steps, self._shape = steps, shape
        self._step = steps.step_of(shape, self._hidden_RD, self._cos_R, self._sin_R)
        num_layers, _, top_k = self._step.ids_LTK.shape
        self._combined_RD = torch.zeros((rows, like_TD.shape[1]), pin_memory=pinned)
        self._dispatch_RD = torch.zeros(
            (rows, like_TD.shape[1]), dtype=like_TD.dtype, pin_memory=pinned
        )
        self._ids_LRK = torch.zeros((num_layers, rows, top_k), dtype=torch.int32, pin_memory=pinned)
        self._weights_RK = torch.zeros((rows, top_k), pin_memory=pinned)
        self._replays: dict[int, Callable[[], object]] = {}
        self._rows = slice(0, 0)
        self._layer_idx = 0

    @property
    def hidden_TD(self) -> Tensor:
        return self._step.hidden_TD[self._rows]

    @property
    def combined_TD(self) -> Tensor:
        return self._combined_RD[self._rows]

    @property
    def is_made(self) -> bool:
        """Whether no layer's part is to be captured any more."""
        return len(self._replays) > self._ids_LRK.shape[0]

    def begin(self, hidden_TD: Tensor, cos_T: Tensor, sin_T: Tensor) -> None:
        self._rows = slice(0, hidden_TD.shape[0])
        for room, rows in (
            (self._hidden_RD, hidden_TD), (self._cos_R, cos_T), (self._sin_R, sin_T)
        ):  # fmt: skip
            room[self._rows].copy_(rows)

    @torch.inference_mode()
    def up_to_dispatch(self, layer_idx: int) -> tuple[Tensor, Tensor, Tensor]:
        self._run(layer_idx)
        self._layer_idx = layer_idx
        rows = self._rows
        return self._dispatch_RD[rows], self._ids_LRK[layer_idx, rows], self._weights_RK[rows]

    @torch.inference_mode()
    def from_combine(self) -> None:
        """The next layer's graph adds the sums; after the last layer there is one for it."""
        if self._layer_idx + 1 == self._ids_LRK.shape[0]:
            self._run(self._layer_idx + 1)

    def chosen(self) -> np.ndarray:
        return self._ids_LRK[:, self._rows].numpy().copy()

    def _run(self, part: int) -> None:
        """What follows hop `part - 1`. Waits for it."""
        replay = self._replays.get(part)
        if replay is not None:
            replay()
        else:
            self._replays[part] = self._steps.captured(partial(self._compute, part))
        if self._hidden_RD.is_cuda:
            torch.cuda.current_stream().synchronize()

    def _compute(self, part: int) -> None:
        step = self._step
        step.layer_idx = part - 1
        if part:
            step.combined_TD.copy_(self._combined_RD, non_blocking=True)
            step.from_combine()
        if part == self._ids_LRK.shape[0]:
            return
        found = step.up_to_dispatch(part)
        room = (self._dispatch_RD, self._ids_LRK[part], self._weights_RK)
        for host, rows in zip(room, found, strict=True):
            host.copy_(rows, non_blocking=True)
