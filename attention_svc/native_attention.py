"""Can the native kernel attend here, and to which pages does each row of a step attend?"""

import torch

from attention_svc.batch import StepMeta
from attention_svc.kv_cache import KvCache
from minimax_m2.config import ModelConfig
from minimax_m2.kernels.cpu import library
from minimax_m2.kernels.cpu.attention import PagedRows, can_attend


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
    rows_B = torch.arange(num_decode)
    # Tables are padded to one width: a row's begins at a multiple of it.
    segments = [
        torch.stack((rows_B, torch.ones_like(rows_B), meta.decode_lens_B, rows_B * width), dim=1)
    ]
    first = num_decode * width
    for chunk in meta.chunks:
        num_rows = chunk.rows.stop - chunk.rows.start
        segments.append(torch.tensor([[chunk.rows.start, num_rows, chunk.num_cached, first]]))
        first += chunk.block_table_W.shape[0]
    tables = [meta.decode_tables_BW.flatten(), *(chunk.block_table_W for chunk in meta.chunks)]
    return PagedRows(torch.cat(segments), torch.cat(tables))
