"""A tiny model of the CUDA kernels' parts, and steps of its sequences by hand."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from attention_svc.kv.cache import KvCache
from attention_svc.sampling.plain import pick_plain
from moe_model.kernels.cuda.backend import CudaBackend
from moe_model.maths.experts import HeldExperts
from moe_model.maths.layer import Layer
from moe_model.maths.paged_attention import PagedAttention
from moe_model.maths.rope import rope_frequencies
from moe_model.maths.step_meta import ChunkMeta, StepMeta
from moe_model.maths.whole_steps import OuterWeights, WholeSteps
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint
from moe_model.weights.open import put_expert
from tests.support.moe_model.tiny_sizes import FEW_PIECES

BLOCK, NUM_BLOCKS = 16, 6
SIZES = {**FEW_PIECES, "head_dim": 16, "rotary_dim": 8}
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
FORMAT = "bf16"


def write(folder: Path, **sizes: int) -> Checkpoint:
    write_tiny(folder, seed=4, **{**SIZES, **sizes})
    return Checkpoint.open(folder)


@dataclass(frozen=True)
class Parts:
    """Of a model, with empty pages for three sequences."""

    checkpoint: Checkpoint
    backend: CudaBackend
    cache: KvCache
    layers: list[Layer]
    experts: list[HeldExperts]
    outer: OuterWeights
    attention: PagedAttention

    @classmethod
    def of(cls, checkpoint: Checkpoint, device: torch.device, kv_dtype: str = "auto") -> "Parts":
        config, backend = checkpoint.config, CudaBackend(torch.bfloat16, device)
        linears = backend.linears(FORMAT)
        cache = KvCache(
            backend.kv_layout(kv_dtype, config, BLOCK),
            num_layers=config.num_layers,
            num_blocks=NUM_BLOCKS,
            block_size=BLOCK,
            device=device,
        )
        layers, experts = [], []
        for layer_idx in range(config.num_layers):
            held = backend.room_for_experts(config.num_experts, config, FORMAT)
            for expert_id in range(config.num_experts):
                put_expert(checkpoint, held, expert_id, layer_idx, expert_id)
            experts.append(held)
            weights = checkpoint.layer(layer_idx, linears).to(device)
            layers.append(backend.hold_layer(weights, config))
        outer = OuterWeights(
            embedding_VD=checkpoint.outer("embedding", torch.bfloat16).to(device),
            final_norm_D=checkpoint.outer("final_norm", torch.bfloat16).to(device),
            lm_head_VD=checkpoint.lm_head(linears),
            frequencies=rope_frequencies(config.rotary_dim, config.rope_theta, device),
        )
        attention = backend.attention(config, cache)
        return cls(checkpoint, backend, cache, layers, experts, outer, attention)

    def whole_steps(self, missing_ids: tuple[int, ...] = ()) -> WholeSteps:
        found = self.backend.whole_steps(
            self.outer, self.layers, self.experts, self.attention, self.cache, missing_ids,
            pick_plain,
        )  # fmt: skip
        assert found is not None
        return found


def table(sequence: int) -> Tensor:
    return torch.tensor([sequence * 2 + 1, sequence * 2])


def slots(sequence: int, positions_T: Tensor) -> Tensor:
    return table(sequence)[positions_T // BLOCK] * BLOCK + positions_T % BLOCK


def chunk_of(sequence: int, ids: list[int], start: int) -> StepMeta:
    """All rows want logits."""
    positions_T = torch.arange(start, start + len(ids))
    chunk = ChunkMeta(
        rows=slice(0, len(ids)),
        positions_T=positions_T,
        block_table_W=table(sequence),
        num_cached=start + len(ids),
    )
    return StepMeta(
        token_ids_T=torch.tensor(ids),
        positions_T=positions_T,
        slot_mapping_T=slots(sequence, positions_T),
        num_decode=0,
        decode_tables_BW=torch.empty((0, 0), dtype=torch.int64),
        decode_lens_B=torch.empty(0, dtype=torch.int64),
        chunks=(chunk,),
        logit_rows_B=torch.arange(len(ids)),
        open_rows_C=torch.empty(0, dtype=torch.int64),
        is_decode=False,
    )


def decode_of(ids: list[int], position: int) -> StepMeta:
    """Sequence i's token at `position`."""
    positions_T = torch.full((len(ids),), position)
    numbers = range(len(ids))
    return StepMeta(
        token_ids_T=torch.tensor(ids),
        positions_T=positions_T,
        slot_mapping_T=torch.cat([slots(i, positions_T[:1]) for i in numbers]),
        num_decode=len(ids),
        decode_tables_BW=torch.stack([table(i) for i in numbers]),
        decode_lens_B=positions_T + 1,
        chunks=(),
        logit_rows_B=torch.arange(len(ids)),
        open_rows_C=torch.empty(0, dtype=torch.int64),
        is_decode=True,
    )
