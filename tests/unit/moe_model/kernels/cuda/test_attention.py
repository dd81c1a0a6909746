"""Which rows and tiles go together in attention?"""

import pytest
import torch
from torch import Tensor

from attention_svc.kv.cache import KvCache
from moe_model.kernels.cuda import attention as cuda_attention
from moe_model.kernels.cuda.attention import CudaAttention, can_attend, decode_runs
from moe_model.maths.kv_layout import PlainLayout
from moe_model.maths.step_meta import StepMeta

BLOCK, HEADS, GROUPS, HEAD_DIM = 16, 4, 2, 16


def test_rows_are_attended_to_in_runs_of_bounded_memory(device: torch.device) -> None:
    lens_B = torch.tensor([256 * 5000, 256 * 3000, 256 * 200, 256 * 9000, 1])
    runs = decode_runs(torch.zeros((5, 4), dtype=torch.int64), lens_B, device)
    assert [run for run, _ in runs] == [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 5)]
    assert [len(rows.row_of_item_I) for _, rows in runs] == [8000, 200, 9000, 1]
    assert runs[1][1].row_of_item_I.unique().tolist() == [0]
    assert not decode_runs(torch.zeros((0, 4), dtype=torch.int64), lens_B[:0], device)


def test_a_row_has_the_same_bits_in_every_run(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = PlainLayout(GROUPS, HEAD_DIM, torch.bfloat16)
    cache = KvCache(layout, num_layers=1, num_blocks=20, block_size=BLOCK, device=device)
    shape = (20 * BLOCK, GROUPS, HEAD_DIM)
    keys, values = (torch.randn(shape, device=device).bfloat16() for _ in range(2))
    cache.store(0, keys, values, torch.arange(shape[0], device=device))
    attention = CudaAttention(cache, HEADS, GROUPS)
    queries = torch.randn((3, HEADS, HEAD_DIM), device=device).bfloat16()
    nothing = torch.empty(0, dtype=torch.int64)
    meta = StepMeta(
        token_ids_T=nothing, positions_T=nothing, slot_mapping_T=nothing, num_decode=3,
        decode_tables_BW=torch.arange(20).expand(3, -1), decode_lens_B=torch.tensor([300, 5, 257]),
        chunks=(), logit_rows_B=nothing, open_rows_C=nothing, is_decode=True,
    )  # fmt: skip

    def found() -> Tensor:
        return attention.plan(meta)(0, queries)

    whole = found()
    monkeypatch.setattr(cuda_attention, "MOST_ITEMS", 2)
    assert torch.equal(found(), whole)


@pytest.mark.parametrize(("head_dim", "fits"), [(8, False), (128, True), (256, True), (512, False)])
def test_heads_fit_every_gpus_memory(head_dim: int, fits: bool) -> None:
    layout = PlainLayout(GROUPS, head_dim, torch.bfloat16)
    assert can_attend(torch.bfloat16, layout, HEADS, GROUPS) == fits
