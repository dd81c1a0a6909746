"""Can the native kernel attend here, and to which pages does each row of a step attend?"""

import torch

from attention_svc.engine.step import StepMeta
from attention_svc.kv.cache import KvCache
from moe_model.config import ModelConfig
from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.attention import PagedRows, can_attend


def attends_natively(
    config: ModelConfig, cache: KvCache, dtype: torch.dtype, device: torch.device
) -> bool:
    """bfloat16 on CPUs, with heads and a layout that the kernel takes; else torch attends."""
    heads = (config.num_heads, config.num_kv_heads, config.head_dim)
    return (
        dtype == torch.bfloat16
        and device.type == "cpu"
        and library.load() is not None
        and can_attend(dtype, cache.layout.dtype, *heads)
    )


def paged_rows(meta: StepMeta) -> PagedRows:
    """One plan for all layers: decode rows first, a segment each, then the chunks."""
    num_decode, width = meta.decode_tables_BW.shape
    # Tables are padded to one width: a row's begins at a multiple of it.
    lens = enumerate(meta.decode_lens_B.tolist())
    segments = [[row, 1, num_cached, row * width] for row, num_cached in lens]
    first = num_decode * width
    for chunk in meta.chunks:
        num_rows = chunk.rows.stop - chunk.rows.start
        segments.append([chunk.rows.start, num_rows, chunk.num_cached, first])
        first += chunk.block_table_W.shape[0]
    tables = meta.decode_tables_BW.flatten()
    if meta.chunks:
        tables = torch.cat([tables, *(chunk.block_table_W for chunk in meta.chunks)])
    return PagedRows(torch.tensor(segments, dtype=torch.int64), tables)
