"""Experts of a layer on a GPU: coded weights in slots, and the launches of a message.

Nothing waits for the device and no shape depends on data, so that a CUDA graph can hold a call.
"""

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from moe_model.config import ModelConfig
from moe_model.kernels.cpu.packed import PackedMatrix
from moe_model.kernels.cuda import grouped
from moe_model.kernels.cuda.codes import FORMATS, GROUP, Coded, encode
from moe_model.kernels.cuda.from_panels import code_expert
from moe_model.kernels.cuda.launch import launch, power_of_two, shared_memory_bytes
from moe_model.kernels.cuda.rows import Parts
from moe_model.maths.experts import HeldExperts
from moe_model.quant import StoredExpert

_CHUNK = 1024
"""Pairs that are looked at together."""
_FEW_PAIRS = 16
"""So few have hardly an expert in common: every pair is a tile of its own."""
_COLUMNS = 512
"""Of a row, added by one program."""
_WIDE_BYTES = 163_840
"""That a processor needs for tiles of 128 x 128 in fp8; in int4 less."""


@dataclass(frozen=True)
class Tiling:
    """Outputs and rows of a tile, warps and pipeline stages. No bit of a result depends on them."""

    outputs: int
    rows: int
    warps: int = 4
    stages: int = 3


def tilings(bits: int, num_pairs: int, num_slots: int, wide: bool) -> tuple[Tiling, Tiling]:
    """For gate and up, and for down: the fastest on an H200 (bench/kernels/gpu_experts.py).

    With four warps and 64 outputs Triton takes Hopper's wgmma: the same bits as mma.sync, measured.
    `wide`: tiles of 128 outputs and rows fit the weights and the processor's memory.
    """
    rows = 16
    most_rows = 128 if wide and bits < 16 else 64
    while rows < most_rows and num_pairs > 2 * rows * num_slots:
        rows *= 2
    if rows == 16 and num_pairs <= (2 if bits == 4 else 0.5) * num_slots:
        rows = 8
    few = num_pairs <= 16
    if rows == 128:
        return Tiling(128, 128, 8), Tiling(*(128, 128, 8) if bits == 4 else (64, 128, 4))
    if rows >= 32 and bits < 16:
        return Tiling(64, rows, 4), Tiling(64, rows, 2 if rows == 32 else 4)
    if bits == 4 and not few:
        up = Tiling(32, rows, 2) if rows == 8 else Tiling(64, rows, 1)
        return up, Tiling(64, rows, 1)
    return Tiling(32, rows, 2), Tiling(32, 16 if few and bits == 8 else rows, 2)


class CudaExperts:
    """See HeldExperts. Weights are [slots, 2, ...] for w1 and w3, and [slots, ...] for w2."""

    def __init__(
        self, num_held: int, config: ModelConfig, weight_format: str, device: torch.device
    ):
        self.format = FORMATS[weight_format]
        self.device = device
        d, f = config.hidden_size, config.expert_size
        self.sizes = (d, f)

        def room(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        codes, scales = self.format.codes_shape, self.format.scales_shape
        self.up_codes = room((num_held, 2, *codes(f, d)), self.format.dtype)
        self.up_scales = room((num_held, 2, *scales(f, d)), self.format.scale_dtype)
        self.down_codes = room((num_held, *codes(d, f)), self.format.dtype)
        self.down_scales = room((num_held, *scales(d, f)), self.format.scale_dtype)
        even = not self.up_codes.shape[2] % 2 and not self.down_codes.shape[1] % 2
        self._wide = even and shared_memory_bytes(device) >= _WIDE_BYTES

    def put(self, slot: int, expert: StoredExpert) -> None:
        for index, stored in enumerate((expert.w1, expert.w3)):
            coded = encode(stored, self.format, self.device)
            self.up_codes[slot, index], self.up_scales[slot, index] = coded.codes, coded.scales
        coded = encode(expert.w2, self.format, self.device)
        self.down_codes[slot], self.down_scales[slot] = coded.codes, coded.scales

    def put_panels(self, slot: int, gate_up: PackedMatrix, down: PackedMatrix) -> None:
        one, three, two = code_expert(gate_up, down, self.sizes[1], self.device)
        for index, coded in enumerate((one, three)):
            self.up_codes[slot, index], self.up_scales[slot, index] = coded.codes, coded.scales
        self.down_codes[slot], self.down_scales[slot] = two.codes, two.scales

    def get(self, slot: int) -> tuple[Coded, Coded, Coded]:
        """w1, w3 and w2."""
        return (
            Coded(self.up_codes[slot, 0], self.up_scales[slot, 0], self.format),
            Coded(self.up_codes[slot, 1], self.up_scales[slot, 1], self.format),
            Coded(self.down_codes[slot], self.down_scales[slot], self.format),
        )

    def move(self, slot: int, other: HeldExperts, other_slot: int) -> None:
        assert isinstance(other, CudaExperts)
        self.up_codes[slot] = other.up_codes[other_slot]
        self.up_scales[slot] = other.up_scales[other_slot]
        self.down_codes[slot] = other.down_codes[other_slot]
        self.down_scales[slot] = other.down_scales[other_slot]

    def kernels(self, num_pairs: int) -> Hashable:
        """Which ones a message of so many pairs takes: equal for equal ones."""
        num_slots = self.down_codes.shape[0]
        tiles = tilings(self.format.bits, num_pairs, num_slots, self._wide)
        return self.format.id, num_slots, tiles, num_pairs > _FEW_PAIRS

    def rows(
        self, hidden_ND: Tensor, row_of_pair_M: Tensor, slots_M: Tensor, weights_M: Tensor
    ) -> Tensor:
        return self._rows(hidden_ND, row_of_pair_M, slots_M, weights_M, 0)

    def sums(
        self, hidden_ND: Tensor, row_of_pair_M: Tensor, slots_M: Tensor, weights_M: Tensor
    ) -> Tensor:
        wanted = torch.arange(hidden_ND.shape[0] + 1, device=self.device)
        first_of_row = torch.searchsorted(row_of_pair_M, wanted)
        out_ND = torch.empty(hidden_ND.shape, dtype=torch.float32, device=self.device)
        self.listed_sums(hidden_ND, row_of_pair_M, slots_M, weights_M, first_of_row, out_ND)
        return out_ND

    def listed_sums(
        self,
        hidden_ND: Tensor,
        row_of_pair_M: Tensor,
        slots_M: Tensor,
        weights_M: Tensor,
        first_of_row: Tensor,
        out_ND: Tensor,
    ) -> None:
        """`sums` into `out_ND` of rows whose first pairs are known, [N + 1].

        Pairs with slot -1, which only fill the list up, come after the last row's.
        """
        rows_MD = self._rows(hidden_ND, row_of_pair_M, slots_M, weights_M, 0)
        self._add(rows_MD, first_of_row, out_ND, 0)

    def routed_sums(
        self, dispatch_TD: Tensor, topk_ids_TK: Tensor, topk_weights_TK: Tensor, out_TD: Tensor
    ) -> None:
        parts = self.routed_parts(dispatch_TD, topk_ids_TK, topk_weights_TK)
        self._add(parts.values, topk_ids_TK, out_TD, parts.count)

    def routed_parts(
        self, dispatch_TD: Tensor, topk_ids_TK: Tensor, topk_weights_TK: Tensor
    ) -> Parts:
        """The rows that `routed_sums` adds, for kernels that add them by themselves."""
        top_k = topk_ids_TK.shape[1]
        slots_M = topk_ids_TK.reshape(-1)
        rows_MD = self._rows(dispatch_TD, slots_M, slots_M, topk_weights_TK.reshape(-1), top_k)
        return Parts(rows_MD, top_k * rows_MD.shape[1], rows_MD.shape[1], top_k)

    def _rows(
        self,
        hidden_ND: Tensor,
        row_of_pair_M: Tensor,
        slots_M: Tensor,
        weights_M: Tensor,
        pairs_per_row: int,
    ) -> Tensor:
        """Weighted rows of all pairs, each in its place: [M, D]."""
        d, f = self.sizes
        num_pairs, num_slots = slots_M.shape[0], self.down_codes.shape[0]
        up, low = tilings(self.format.bits, num_pairs, num_slots, self._wide)
        grouped_tiles = num_pairs > _FEW_PAIRS
        if grouped_tiles:
            sorted_M, tiles, max_tiles = self._group(slots_M, up.rows)
        else:
            sorted_M, tiles, max_tiles = slots_M, (slots_M,) * 4, num_pairs
        act_MF = torch.empty((num_pairs, f), dtype=hidden_ND.dtype, device=self.device)
        out_MD = torch.empty((num_pairs, d), dtype=hidden_ND.dtype, device=self.device)
        shared = {
            "GROUPED": grouped_tiles,
            "FORMAT": self.format.id,
            "WIDTH": self.down_codes.shape[-1],
        }
        panels, groups = self.up_codes.shape[2:4]
        launch(
            grouped.gate_up, (panels * 64 // up.outputs, max_tiles),
            hidden_ND, hidden_ND.stride(0), row_of_pair_M, self.up_codes, self.up_scales, act_MF,
            sorted_M, *tiles, d, f, groups, self.up_scales.shape[-1],
            EVEN=d % GROUP == 0, B=up.outputs, ROWS=up.rows, PAIRS_PER_ROW=pairs_per_row,
            num_warps=up.warps, num_stages=up.stages, **shared,
        )  # fmt: skip
        panels, groups = self.down_codes.shape[1:3]
        launch(
            grouped.down, (panels * 64 // low.outputs, max_tiles),
            act_MF, self.down_codes, self.down_scales, weights_M, out_MD,
            sorted_M, *tiles, f, d, groups, self.down_scales.shape[-1],
            EVEN=f % GROUP == 0, B=low.outputs, ROWS=low.rows,
            num_warps=low.warps, num_stages=low.stages, **shared,
        )  # fmt: skip
        return out_MD

    def _group(self, slots_M: Tensor, rows: int) -> tuple[Tensor, tuple[Tensor, ...], int]:
        """Pairs sorted by slot; each tile's slot, first and stop, and how many there are."""
        num_pairs, num_slots = slots_M.shape[0], self.down_codes.shape[0]
        max_tiles = -(-(min(num_slots, num_pairs) + num_pairs // rows) // 4) * 4  # stays aligned
        sizes = [max_tiles, max_tiles, max_tiles, 4, num_pairs]
        *tiles, sorted_M = torch.empty(sum(sizes), dtype=torch.int32, device=self.device).split(
            sizes
        )
        launch(
            grouped.group_pairs, (num_slots,), slots_M, num_pairs, sorted_M, *tiles,
            ROWS=rows, CHUNK=_CHUNK, SLOTS=max(32, power_of_two(num_slots)), num_warps=4,
        )  # fmt: skip
        return sorted_M, tuple(tiles), max_tiles

    def _add(self, rows_MD: Tensor, first_of_row: Tensor, out_ND: Tensor, pairs: int) -> None:
        num_rows, columns = out_ND.shape
        launch(
            grouped.add_pairs, (num_rows, -(-columns // _COLUMNS)),
            rows_MD, first_of_row, out_ND, columns, PAIRS=pairs, C=_COLUMNS,
        )  # fmt: skip
