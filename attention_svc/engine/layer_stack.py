"""The layer loop: hidden rows through every layer, experts over a transport."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from attention_svc.activations import ActivationCounts
from attention_svc.engine.layer_steps import LayerSteps, PlainStep
from attention_svc.engine.native_attention import attends_natively, paged_rows
from attention_svc.engine.step import StepMeta
from attention_svc.engine.watchdog import Progress
from attention_svc.experts.transport import ExpertTransport, HopTerms
from attention_svc.kv.cache import KvCache
from attention_svc.kv.layout import TiledLayout
from moe_model.backends.choice import choose_kernel, choose_row_maths
from moe_model.backends.held_layer import hold_layer
from moe_model.backends.linears import HeldLinears
from moe_model.cost import inline_rows, lm_head_row_flops, projection_row_flops
from moe_model.kernels.cpu.layer import NativeLayer
from moe_model.kernels.cpu.step import MOST_ROWS, NativeSteps
from moe_model.maths.layer import Layer
from moe_model.maths.linear import linear
from moe_model.maths.rope import rope_cos_sin, rope_frequencies
from moe_model.weights.open import Weights

Result = TypeVar("Result")


class StepTimes:
    """Seconds of one step, by part."""

    __slots__ = ("attention_s", "network_s", "pool_compute_s", "pool_queue_s", "sampling_s")

    def __init__(self) -> None:
        self.attention_s = self.network_s = self.pool_queue_s = 0.0
        self.pool_compute_s = self.sampling_s = 0.0


class LayerStack:
    """Attention weights of every layer and the loop over them."""

    def __init__(
        self,
        weights: Weights,
        cache: KvCache,
        transport: ExpertTransport,
        activations: ActivationCounts,
        *,
        linears: HeldLinears,
        compute_thread: Executor,
    ):
        dtype, device = linears.dtype, linears.device
        config = self.config = weights.config
        self.device = device
        self.cache = cache
        self.transport = transport
        self.progress = Progress()
        self._activations = activations
        self._compute_thread = compute_thread
        self._maths = choose_row_maths(dtype, device)
        self._layers: list[Layer] = []
        for layer_idx in range(config.num_layers):
            held = weights.layer(layer_idx, linears).to(device)
            self._layers.append(hold_layer(held, config, self._maths))
        self._embedding_VD = weights.outer("embedding", dtype).to(device)
        self._final_norm_D = weights.outer("final_norm", dtype).to(device)
        self._lm_head_VD = weights.lm_head(linears)
        self.attends_natively = attends_natively(config, cache, dtype, device)
        self._nothing = torch.ones(0, dtype=torch.bool, device=device)
        self._native_steps = self._choose_native_steps()
        kernel = choose_kernel(linears.weight_format, dtype, device)
        self.is_invariant = kernel.is_native and self.attends_natively
        """No row's bits depend on other rows, so far as this stack computes them."""
        self._frequencies = rope_frequencies(config.rotary_dim, config.rope_theta, device)
        # Bytes of one hidden row to a pool, and of its float32 sum back.
        self.row_bytes = (config.hidden_size * dtype.itemsize, config.hidden_size * 4)
        self._inline_rows = inline_rows(projection_row_flops(config))
        self._logits_inline_rows = inline_rows(lm_head_row_flops(config))

    def _choose_native_steps(self) -> NativeSteps | None:
        """Where every layer and its cache are the native kernels'."""
        layers = [layer for layer in self._layers if isinstance(layer, NativeLayer)]
        tiled = isinstance(self.cache.layout, TiledLayout)
        if not (self.attends_natively and tiled and len(layers) == len(self._layers)):
            return None
        return NativeSteps(layers, [self.cache.pages(index) for index in range(len(layers))])

    async def forward(
        self,
        meta: StepMeta,
        terms: HopTerms,
        times: StepTimes,
        score: Callable[[Tensor, Callable[[Tensor], Tensor]], None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """float32 logits [B, V] of `meta.logit_rows_B`; bool [C], `meta.open_rows_C` are finite.

        `score` gets all hidden rows after the last layer, and the head that makes logits of some.
        Raises ExpertsUnavailable or StepPoisoned when a layer's experts cannot be had; what was
        stored in the KV cache by then is overwritten when the tokens run again.
        """
        inline = meta.num_rows <= self._inline_rows
        start = time.monotonic()
        step, progress = self._begin(meta), self.progress
        for layer_idx in range(self.config.num_layers):
            progress.layer_idx = layer_idx
            progress.moves += 1
            dispatch_TD, topk_ids_TK, topk_weights_TK = await self._run(
                inline, partial(step.up_to_dispatch, layer_idx)
            )
            times.attention_s += time.monotonic() - start
            ticket = self.transport.submit(
                layer_idx, dispatch_TD, topk_ids_TK, topk_weights_TK, terms,
                is_decode=meta.is_decode,
            )  # fmt: skip
            progress.moves += 1
            hop = await ticket.wait_into(step.combined_TD)
            times.network_s += hop.network_s
            times.pool_queue_s += hop.queue_s
            times.pool_compute_s += hop.compute_s
            start = time.monotonic()
            step.from_combine()
        hidden_TD = step.hidden_TD
        self._activations.add_step(step.chosen(), is_decode=meta.is_decode)
        if score is not None:
            await self._run(False, lambda: score(hidden_TD, self._logits))
        logits_BV = await self._run(
            inline and meta.logit_rows_B.shape[0] <= self._logits_inline_rows,
            partial(self._logits, self._logit_rows(hidden_TD, meta)),
        )
        # Asked only if there are any: each of torch's operators is slow after a model's weights.
        finite_C = self._nothing
        if meta.open_rows_C.shape[0]:
            finite_C = torch.isfinite(hidden_TD[meta.open_rows_C]).all(dim=-1)
        times.attention_s += time.monotonic() - start
        return logits_BV, finite_C

    async def _run(self, inline: bool, work: Callable[[], Result]) -> Result:
        """Small work here and now (a thread hop costs more), long work on the compute thread."""
        if inline:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._compute_thread, work)

    def _begin(self, meta: StepMeta) -> LayerSteps:
        """The step's rows before the first layer."""
        cos_T, sin_T = rope_cos_sin(meta.positions_T, self._frequencies)
        hidden_TD = self._embedding_VD.index_select(0, meta.token_ids_T)
        if self._native_steps is not None and meta.num_rows <= MOST_ROWS:
            slots_T = meta.slot_mapping_T
            return self._native_steps.begin(hidden_TD, cos_T, sin_T, slots_T, paged_rows(meta))
        return PlainStep(
            self._layers, self.cache, self.config, self._maths, meta, hidden_TD, cos_T, sin_T,
            attends_natively=self.attends_natively,
        )  # fmt: skip

    def _logit_rows(self, hidden_TD: Tensor, meta: StepMeta) -> Tensor:
        """In their order, which is that of the rows: all of them are the rows themselves."""
        every_row = meta.logit_rows_B.shape[0] == meta.num_rows
        return hidden_TD if every_row else hidden_TD[meta.logit_rows_B]

    @torch.inference_mode()
    def _logits(self, hidden_BD: Tensor) -> Tensor:
        if not hidden_BD.shape[0]:
            return torch.empty((0, self.config.vocab_size))
        final_BD = self._maths.rms_norm(hidden_BD, self._final_norm_D, self.config.rms_norm_eps)
        return linear(final_BD, self._lm_head_VD, torch.float32)
