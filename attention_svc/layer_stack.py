"""The layer loop: hidden rows through every layer, experts over a transport."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from attention_svc.batch import StepMeta
from attention_svc.kv_cache import KvCache
from attention_svc.metrics import ActivationCounts
from attention_svc.native_attention import attends_natively, paged_rows
from attention_svc.paged_attention import DecodePlan, attend_chunk, attend_decode, plan_decode
from attention_svc.transport import ExpertTransport, HopTerms
from minimax_m2.cost import inline_rows, lm_head_row_flops, projection_row_flops
from minimax_m2.held_layer import hold_layer
from minimax_m2.kernel_choice import choose_kernel
from minimax_m2.kernels.cpu.attention import PagedRows
from minimax_m2.kernels.cpu.attention import attend_paged as attend_natively
from minimax_m2.layer import Layer, from_combine, up_to_dispatch
from minimax_m2.linear import linear
from minimax_m2.linears import HeldLinears
from minimax_m2.rope import rope_cos_sin, rope_frequencies
from minimax_m2.row_maths import choose_row_maths
from minimax_m2.weights import Weights

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
        kernel = choose_kernel(linears.weight_format, dtype, device)
        self.is_invariant = kernel.is_native and self.attends_natively
        """No row's bits depend on other rows, so far as this stack computes them."""
        self._frequencies = rope_frequencies(config.rotary_dim, config.rope_theta, device)
        # Bytes of one hidden row to a pool, and of its float32 sum back.
        self.row_bytes = (config.hidden_size * dtype.itemsize, config.hidden_size * 4)
        self._inline_rows = inline_rows(projection_row_flops(config))
        self._logits_inline_rows = inline_rows(lm_head_row_flops(config))

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
        cos_T, sin_T = rope_cos_sin(meta.positions_T, self._frequencies)
        hidden_TD = self._embedding_VD[meta.token_ids_T]
        combined_TD = torch.empty_like(hidden_TD, dtype=torch.float32)
        plan: DecodePlan | PagedRows | None = None
        if self.attends_natively:
            plan = paged_rows(meta)
        elif meta.num_decode:
            plan = plan_decode(meta.decode_tables_BW, meta.decode_lens_B, self.cache.block_size)
        chosen: list[Tensor] = []
        for layer_idx in range(self.config.num_layers):
            residual_TD, dispatch_TD, topk_ids_TK, topk_weights_TK = await self._run(
                inline,
                lambda: self._to_dispatch(layer_idx, hidden_TD, cos_T, sin_T, meta, plan),  # noqa: B023
            )
            times.attention_s += time.monotonic() - start
            ticket = self.transport.submit(
                layer_idx, dispatch_TD, topk_ids_TK, topk_weights_TK, terms,
                is_decode=meta.is_decode,
            )  # fmt: skip
            chosen.append(topk_ids_TK)
            hop = await ticket.wait_into(combined_TD)
            times.network_s += hop.network_s
            times.pool_queue_s += hop.queue_s
            times.pool_compute_s += hop.compute_s
            start = time.monotonic()
            hidden_TD = from_combine(residual_TD, combined_TD, self._maths)
        self._activations.add_step(
            [ids_TK.cpu().numpy() for ids_TK in chosen], is_decode=meta.is_decode
        )
        if score is not None:
            await self._run(False, lambda: score(hidden_TD, self._logits))
        logits_BV = await self._run(
            inline and meta.logit_rows_B.shape[0] <= self._logits_inline_rows,
            lambda: self._logits(hidden_TD[meta.logit_rows_B]),
        )
        finite_C = torch.isfinite(hidden_TD[meta.open_rows_C]).all(dim=-1)
        times.attention_s += time.monotonic() - start
        return logits_BV, finite_C

    async def _run(self, inline: bool, work: Callable[[], Result]) -> Result:
        """Small work here and now (a thread hop costs more), long work on the compute thread."""
        if inline:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._compute_thread, work)

    @torch.inference_mode()
    def _to_dispatch(
        self,
        layer_idx: int,
        hidden_TD: Tensor,
        cos_T: Tensor,
        sin_T: Tensor,
        meta: StepMeta,
        plan: DecodePlan | PagedRows | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        def attend_paged(q_THP: Tensor, k_TGP: Tensor, v_TGP: Tensor) -> Tensor:
            self.cache.store(layer_idx, k_TGP, v_TGP, meta.slot_mapping_T)
            if isinstance(plan, PagedRows):
                pages = self.cache.pages(layer_idx)
                return attend_natively(q_THP, *pages, self.config.num_kv_heads, plan)
            return self._attend(layer_idx, q_THP, meta, plan)

        return up_to_dispatch(hidden_TD, self._layers[layer_idx], cos_T, sin_T, attend_paged)

    def _attend(
        self, layer_idx: int, q_THP: Tensor, meta: StepMeta, plan: DecodePlan | None
    ) -> Tensor:
        """Decode rows in one batch, then each chunk over its own context."""
        gather = partial(self.cache.gather, layer_idx)
        parts: list[Tensor] = []
        if plan is not None:
            parts.append(attend_decode(q_THP[: meta.num_decode], plan, gather))
        for chunk in meta.chunks:
            parts.append(
                attend_chunk(
                    q_THP[chunk.rows], chunk.num_cached, chunk.block_table_W,
                    self.cache.block_size, gather,
                )
            )  # fmt: skip
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @torch.inference_mode()
    def _logits(self, hidden_BD: Tensor) -> Tensor:
        if not hidden_BD.shape[0]:
            return torch.empty((0, self.config.vocab_size))
        final_BD = self._maths.rms_norm(hidden_BD, self._final_norm_D, self.config.rms_norm_eps)
        return linear(final_BD, self._lm_head_VD, torch.float32)
