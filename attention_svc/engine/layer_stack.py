"""How do hidden rows pass through the layers? Attention here, experts over a transport."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from attention_svc.activations import ActivationCounts
from attention_svc.engine.host_rows import HostRows
from attention_svc.engine.watchdog import WHOLE_STEP, StepProgress
from attention_svc.experts.transport import ExpertTransport, HopTerms
from attention_svc.kv.cache import KvCache
from attention_svc.sampling.plain import NUM_CONTROLS, draws, pick_plain
from attention_svc.sequence.sequence import StepTimes
from moe_model.backends.backend import Backend
from moe_model.cost import inline_rows, lm_head_row_flops, projection_row_flops
from moe_model.gpus import wait_for_stream
from moe_model.maths.layer_steps import LayerSteps
from moe_model.maths.linear import linear
from moe_model.maths.rope import rope_cos_sin, rope_frequencies
from moe_model.maths.step_meta import StepMeta
from moe_model.maths.whole_steps import OuterWeights, WholeStep, WholeSteps
from moe_model.numerics import is_invariant
from moe_model.weights.open import Weights

Result = TypeVar("Result")
Score = Callable[[Tensor, Callable[[Tensor], Tensor]], None]


@dataclass(frozen=True)
class StepLogits:
    """What a step found."""

    logits_BV: Tensor
    """float32: of `meta.logit_rows_B`."""
    finite_open: list[bool]
    """Of `meta.open_rows_C`."""
    picked: list[int] | None = None
    """Of each row of logits, where it is known: see WholeStep.picked."""

    def of(self, rows: list[int]) -> "StepLogits":
        """Some rows only."""
        picked = None if self.picked is None else [self.picked[row] for row in rows]
        return StepLogits(self.logits_BV[rows], self.finite_open, picked)


class LayerStack:
    """The attention weights of all layers, and the loop over them."""

    def __init__(
        self,
        weights: Weights,
        cache: KvCache,
        transport: ExpertTransport,
        activations: ActivationCounts,
        *,
        backend: Backend,
        linear_format: str,
        compute_thread: Executor,
        missing_ids: Sequence[int] = (),
        loaded: Callable[[], None] = lambda: None,
    ):
        """`loaded` is called after each layer."""
        dtype, device = backend.dtype, backend.device
        config = self.config = weights.config
        self.device = device
        self.cache = cache
        self.transport = transport
        self._on_cpu = device.type == "cpu"
        self.progress = StepProgress()
        self._activations = activations
        self._compute_thread = compute_thread
        self._maths = backend.rows
        linears = backend.linears(linear_format)
        layers = []
        for layer_idx in range(config.num_layers):
            layer = weights.layer(layer_idx, linears).to(device)
            layers.append(backend.hold_layer(layer, config))
            loaded()
        self._embedding_VD = weights.outer("embedding", dtype).to(device)
        self._final_norm_D = weights.outer("final_norm", dtype).to(device)
        self._lm_head_VD = weights.lm_head(linears)
        attention = backend.attention(config, cache)
        self._steps = backend.steps(layers, cache, attention)
        self.attends_by = attention.name
        self.reads_unwritten = attention.reads_unwritten
        numerics_id = backend.numerics(linear_format).id
        self.is_invariant = is_invariant(numerics_id) and attention.is_invariant
        """Whether no row's bits depend on other rows, in what this stack computes."""
        self._frequencies = rope_frequencies(config.rotary_dim, config.rope_theta, device)
        outer = OuterWeights(
            embedding_VD=self._embedding_VD,
            final_norm_D=self._final_norm_D,
            lm_head_VD=self._lm_head_VD,
            frequencies=self._frequencies,
        )
        held = transport.held_here()
        self._whole = backend.whole_steps(
            outer, layers, held, attention, cache, missing_ids, pick_plain
        )
        self.picks = self._whole is not None
        """Whether steps pick tokens, and let other tasks run while they are computed."""
        # Bytes of one hidden row to a pool, and of its float32 sum back.
        self.row_bytes = (config.hidden_size * dtype.itemsize, config.hidden_size * 4)
        self._inline_rows = inline_rows(projection_row_flops(config))
        self._logits_inline_rows = inline_rows(lm_head_row_flops(config))

    def warm_up(self, *, most_rows: int, most_decode: int) -> Iterator[int]:
        """See WholeSteps.warm_up; nothing where nothing is compiled."""
        if self._whole is not None:
            yield from self._whole.warm_up(most_rows, most_decode, NUM_CONTROLS)
            return
        for left in self._steps.warm_up(most_rows, most_decode):
            yield left
            rows = min(left, most_decode)  # of several sizes: the head, too, has tiles for each
            self._logits(self._embedding_VD[:1].expand(rows, -1))

    async def forward(
        self,
        meta: StepMeta,
        terms: HopTerms,
        times: StepTimes,
        score: Score | None = None,
        controls: np.ndarray | None = None,
        meanwhile: Callable[[bool], None] = lambda is_short: None,
        begun: WholeStep | None = None,
    ) -> StepLogits:
        """Of a step whose `meta` is on the host.

        `controls` are for `pick_plain`, if this stack picks. `score` gets all hidden rows after the
        last layer, and the function from rows to logits. `meanwhile` is called before anything is
        awaited; if a device computes the step by itself, once it is at work. It is told whether
        `begin_next` may be called. `begun`: what that returned for this step.
        Raises ExpertsUnavailable or StepPoisoned when a layer gets no expert sums; what is in the
        KV cache by then is overwritten when the tokens run again.
        """
        if self._whole is not None:
            return await self._forward_whole(
                self._whole, meta, times, score, controls, meanwhile, begun
            )
        meanwhile(False)
        inline = meta.num_rows <= self._inline_rows and self._steps.is_ready(meta)
        start = time.monotonic()
        step, progress = await self.run(inline, partial(self._begin, meta)), self.progress
        for layer_idx in range(self.config.num_layers):
            progress.layer_idx = layer_idx
            progress.moves += 1
            dispatch_TD, topk_ids_TK, topk_weights_TK = await self.run(
                inline, partial(_next_rows, step, layer_idx)
            )
            times.attention_s += time.monotonic() - start
            ticket = self.transport.submit(
                layer_idx,
                dispatch_TD,
                topk_ids_TK,
                topk_weights_TK,
                terms,
                is_decode=meta.is_decode,
            )
            progress.moves += 1
            hop = await ticket.wait_into(step.combined_TD)
            times.network_s += hop.network_s
            times.pool_queue_s += hop.queue_s
            times.pool_compute_s += hop.compute_s
            start = time.monotonic()
        inline &= score is None and meta.logit_rows_B.shape[0] <= self._logits_inline_rows
        found, chosen = await self.run(inline, partial(self._end, step, meta, score))
        self._activations.add_step(chosen, is_decode=meta.is_decode)
        times.attention_s += time.monotonic() - start
        return found

    async def _forward_whole(
        self,
        whole: WholeSteps,
        meta: StepMeta,
        times: StepTimes,
        score: Score | None,
        controls: np.ndarray | None,
        meanwhile: Callable[[bool], None],
        begun: WholeStep | None,
    ) -> StepLogits:
        """All layers and experts in one go: their time is counted as attention's."""
        start = time.monotonic()
        self.progress.layer_idx = WHOLE_STEP
        self.progress.moves += 1
        controls = _if_drawn(controls)
        is_short = begun is not None or whole.is_short(meta, controls)
        if is_short:
            step = whole.start(meta, controls) if begun is None else begun
            meanwhile(meta.is_decode)
            await done(step)
        else:
            meanwhile(False)
            step = await self.run(False, partial(whole.start, meta, controls))

        def rest() -> list[bool]:
            step.wait()
            if score is not None:
                score(step.hidden_TD, self._logits)
            return _finite_rows(step.hidden_TD, meta.open_rows_C)

        finite_open = await self.run(is_short and score is None, rest)
        self.progress.moves += 1
        self._activations.add_step(step.chosen(), is_decode=meta.is_decode)
        times.device_s = step.device_s()
        times.attention_s += time.monotonic() - start
        return StepLogits(step.logits_BV, finite_open, step.picked())

    def begin_next(self, meta: StepMeta, controls: np.ndarray) -> WholeStep | None:
        """The decode step that takes tokens that the one under way picks; None: it is not short.

        It goes to `forward` in its turn. No other step begins before it has ended.
        """
        assert self._whole is not None
        given = _if_drawn(controls)
        return self._whole.start(meta, given) if self._whole.is_short(meta, given) else None

    async def run(self, inline: bool, work: Callable[[], Result]) -> Result:
        """Run small work here (a thread switch costs more), long work on the compute thread."""
        if inline:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._compute_thread, work)

    def samples_at_once(self, num_rows: int) -> bool:
        """Whether sampling from so many rows of logits is small work."""
        return self._on_cpu and num_rows <= self._logits_inline_rows

    def _begin(self, meta: StepMeta) -> LayerSteps:
        """The step's rows before the first layer."""
        cos_T, sin_T = rope_cos_sin(meta.positions_T.to(self.device), self._frequencies)
        hidden_TD = self._embedding_VD.index_select(0, meta.token_ids_T.to(self.device))
        step = self._steps.begin(hidden_TD, cos_T, sin_T, meta)
        if self._on_cpu or not self.transport.on_host or step.combined_TD.is_cpu:
            return step
        return HostRows(step, self.device)

    def _end(
        self, step: LayerSteps, meta: StepMeta, score: Score | None
    ) -> tuple[StepLogits, Sequence[np.ndarray] | np.ndarray]:
        """After the last layer's sums: what was found, and whom every layer chose."""
        step.from_combine()
        hidden_TD = step.hidden_TD
        if score is not None:
            score(hidden_TD, self._logits)
        logits_BV = self._logits(self._logit_rows(hidden_TD, meta))
        finite_open = _finite_rows(hidden_TD, meta.open_rows_C)
        chosen = step.chosen()
        if not self._on_cpu:  # whoever reads the logits next does not wait
            wait_for_stream(self.device)
        return StepLogits(logits_BV, finite_open), chosen

    def _logit_rows(self, hidden_TD: Tensor, meta: StepMeta) -> Tensor:
        """The rows that want logits; when all do, no copy is made."""
        every_row = meta.logit_rows_B.shape[0] == meta.num_rows
        return hidden_TD if every_row else hidden_TD[meta.logit_rows_B]

    @torch.inference_mode()
    def _logits(self, hidden_BD: Tensor) -> Tensor:
        if not hidden_BD.shape[0]:
            return torch.empty((0, self.config.vocab_size))
        final_BD = self._maths.rms_norm(hidden_BD, self._final_norm_D, self.config.rms_norm_eps)
        return linear(final_BD, self._lm_head_VD, torch.float32)


async def done(step: WholeStep) -> None:
    """Wait for a short step, and let others run: a thread that waits would wake up late."""
    await asyncio.sleep(0)
    while not step.is_done():
        await asyncio.sleep(0)


def _if_drawn(controls: np.ndarray | None) -> np.ndarray | None:
    """None where each row's best is wanted: other graphs, which pick it without any."""
    return controls if controls is not None and draws(controls) else None


def _next_rows(step: LayerSteps, layer_idx: int) -> tuple[Tensor, Tensor, Tensor]:
    """From the sums of the layer before, if there is one, to a layer's rows for experts."""
    if layer_idx:
        step.from_combine()
    return step.up_to_dispatch(layer_idx)


def _finite_rows(hidden_TD: Tensor, rows_C: Tensor) -> list[bool]:
    """Asked only if there are any: see docs/cold-caches.md."""
    if not rows_C.shape[0]:
        return []
    found: list[bool] = torch.isfinite(hidden_TD[rows_C]).all(dim=-1).tolist()
    return found
