"""What does attention over pages cost as the context grows, and as the cache does?

One layer of M2's heads in bfloat16, blocks scattered over the cache: a decode row over
128 to 32,768 cached positions, in a cache just large enough for the longest context and in
one eight times as large; a batch of eight rows of which one is long; and a chunk of 512
rows after a prefix. Through the native kernel, which the service uses in bfloat16, and through
torch. Contexts and kernels alternate, medians. The last line is JSON, in microseconds, for each
kernel.

`batch_8`: eight rows of 8,192 positions; `gbps` of keys and values, and `fraction` of the rate at
which the same threads only read, measured in between (native only).
`linear`: cost at each context over the cost that a straight line through the shortest and the
longest gives. `large_cache`: median over contexts of the larger cache's cost to the smaller's.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from attention_svc.kv.cache import KvCache
from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.attention import PagedRows, attend_paged, takes_tiles
from moe_model.kernels.cpu.paged_rows import TiledLayout
from moe_model.maths.kv_layout import PlainLayout
from moe_model.maths.paged_attention import attend_chunk, attend_decode, plan_decode

HEADS, GROUPS, HEAD_DIM, BLOCK = 48, 8, 128, 16
CONTEXTS = (128, 512, 2048, 8192, 32_768)
CHUNK = 512
CHUNK_CONTEXTS = (512, 2048, 8192)
GROWTH = 8
BATCH, BATCH_CONTEXT = 8, 8192
BATCH_BYTES = BATCH * BATCH_CONTEXT * GROUPS * HEAD_DIM * 2 * 2
"""Keys and values of the batch, in bfloat16."""
READ_PIECE_BYTES = 4 << 20


def make_cache(positions: int) -> KvCache:
    tiles = takes_tiles(torch.bfloat16, HEADS, GROUPS, HEAD_DIM, BLOCK)
    layout = (
        TiledLayout(GROUPS, HEAD_DIM) if tiles else PlainLayout(GROUPS, HEAD_DIM, torch.bfloat16)
    )
    cache = KvCache(
        layout,
        num_layers=1,
        num_blocks=positions // BLOCK,
        block_size=BLOCK,
        device=torch.device("cpu"),
    )
    slots = torch.arange(positions)
    for part in slots.split(4096):  # written, so that every page is there
        rows = torch.randn(len(part), GROUPS, HEAD_DIM).bfloat16()
        cache.store(0, rows, rows, part)
    return cache


def decode(cache: KvCache, lens: list[int], native: bool) -> Callable[[], object]:
    """One decode step's attention, torch's plan included."""
    num_blocks = cache.pages(0)[0].shape[0]
    width = max(lens) // BLOCK
    tables_BW = torch.stack([torch.randperm(num_blocks)[:width] for _ in lens])
    lens_B = torch.tensor(lens)
    q_BHP = torch.randn(len(lens), HEADS, HEAD_DIM).bfloat16()
    if native:
        rows_B = torch.arange(len(lens))
        segments = torch.stack((rows_B, torch.ones_like(rows_B), lens_B, rows_B * width), dim=1)
        return partial(_attend_natively, cache, q_BHP, PagedRows(segments, tables_BW.flatten()))
    gather = partial(cache.gather, 0)
    return lambda: attend_decode(q_BHP, plan_decode(tables_BW, lens_B, BLOCK), gather)


def chunk(cache: KvCache, num_cached: int, native: bool) -> Callable[[], object]:
    table_W = torch.randperm(cache.pages(0)[0].shape[0])[: num_cached // BLOCK]
    q_THP = torch.randn(CHUNK, HEADS, HEAD_DIM).bfloat16()
    if native:
        segments = torch.tensor([[0, CHUNK, num_cached, 0]])
        return partial(_attend_natively, cache, q_THP, PagedRows(segments, table_W))
    gather = partial(cache.gather, 0)
    return lambda: attend_chunk(q_THP, num_cached, table_W, BLOCK, gather)


def _attend_natively(cache: KvCache, q_THP: torch.Tensor, rows: PagedRows) -> torch.Tensor:
    return attend_paged(q_THP, *cache.pages(0), GROUPS, rows)


@torch.inference_mode()
def measure(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median microseconds of each, alternated."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for index in range(rounds + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if index:  # the first round warms up
                times[name].append(time.perf_counter() - start)
        print(f"round {index} of {rounds}", file=sys.stderr, flush=True)
    return {name: round(1e6 * statistics.median(values), 1) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    native = library.load()
    if native is not None:
        native.set_threads(options.threads)
    small, large = make_cache(max(CONTEXTS)), make_cache(GROWTH * max(CONTEXTS))
    kernels = ("native", "torch") if native is not None else ("torch",)
    works: dict[str, Callable[[], object]] = {}
    for kernel in kernels:
        is_native = kernel == "native"
        for n in CONTEXTS:
            works[f"{kernel} decode {n}"] = decode(small, [n], is_native)
            works[f"{kernel} large {n}"] = decode(large, [n], is_native)
        works[f"{kernel} mixed"] = decode(large, [128] * 7 + [32_768], is_native)
        works[f"{kernel} batch"] = decode(large, [BATCH_CONTEXT] * BATCH, is_native)
        works |= {f"{kernel} chunk {n}": chunk(small, n, is_native) for n in CHUNK_CONTEXTS}
    if native is not None:
        buffer = torch.ones(BATCH_BYTES, dtype=torch.uint8)
        works["read"] = partial(
            native.native.stream_read, buffer.data_ptr(), BATCH_BYTES, READ_PIECE_BYTES
        )
    us = measure(works, options.rounds)
    answer = {kernel: report(us, kernel) for kernel in kernels}
    print(json.dumps({"bench": "attention", "threads": options.threads, **answer}))


def report(us: dict[str, float], kernel: str) -> dict[str, object]:
    first, last = CONTEXTS[0], CONTEXTS[-1]
    decode_us = {n: us[f"{kernel} decode {n}"] for n in CONTEXTS}
    base, end = decode_us[first], decode_us[last]
    line = {n: base + (end - base) * (n - first) / (last - first) for n in CONTEXTS}
    batch_us = us[f"{kernel} batch"]
    batch = {"us": batch_us, "gbps": round(BATCH_BYTES / batch_us / 1e3, 2)}
    if kernel == "native":
        batch["fraction"] = round(us["read"] / batch_us, 3)
    return {
        "decode_us": {str(n): us_n for n, us_n in decode_us.items()},
        "linear": {str(n): round(decode_us[n] / line[n], 3) for n in CONTEXTS},
        "large_cache": round(
            statistics.median(us[f"{kernel} large {n}"] / decode_us[n] for n in CONTEXTS), 3
        ),
        "mixed_us": us[f"{kernel} mixed"],
        "batch_8": batch,
        "chunk_us": {str(n): us[f"{kernel} chunk {n}"] for n in CHUNK_CONTEXTS},
    }


if __name__ == "__main__":
    main()
