"""What does attention over pages cost as the context grows, and as the cache does?

One layer of M2's heads in bfloat16, blocks scattered over the cache: a decode row over
128 to 32,768 cached positions, in a cache just large enough for the longest context and in
one eight times as large; a batch of eight rows of which one is long; and a chunk of 512
rows after a prefix. Contexts alternate, medians. The last line is JSON, in microseconds.

`linear`: cost at each context over the cost that a straight line through the shortest
and the longest gives. `large_cache`: median over contexts of the larger cache's cost to the smaller's.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from attention_svc.kv_cache import KvCache
from attention_svc.kv_layout import PlainLayout
from attention_svc.paged_attention import attend_chunk, attend_decode, plan_decode

HEADS, GROUPS, HEAD_DIM, BLOCK = 48, 8, 128, 16
CONTEXTS = (128, 512, 2048, 8192, 32_768)
CHUNK = 512
CHUNK_CONTEXTS = (512, 2048, 8192)
GROWTH = 8


def make_cache(positions: int) -> KvCache:
    layout = PlainLayout(GROUPS, HEAD_DIM, torch.bfloat16)
    cache = KvCache(
        layout, num_layers=1, num_blocks=positions // BLOCK, block_size=BLOCK,
        device=torch.device("cpu"),
    )  # fmt: skip
    slots = torch.arange(positions)
    for part in slots.split(4096):  # written, so that every page is there
        rows = torch.randn(len(part), GROUPS, HEAD_DIM).bfloat16()
        cache.store(0, rows, rows, part)
    return cache


def decode(cache: KvCache, lens: list[int]) -> Callable[[], object]:
    """One decode step's attention, its plan included."""
    num_blocks = cache._data.shape[2]
    width = max(lens) // BLOCK
    tables_BW = torch.stack([torch.randperm(num_blocks)[:width] for _ in lens])
    lens_B = torch.tensor(lens)
    q_BHP = torch.randn(len(lens), HEADS, HEAD_DIM).bfloat16()
    gather = partial(cache.gather, 0)
    return lambda: attend_decode(q_BHP, plan_decode(tables_BW, lens_B, BLOCK), gather)


def chunk(cache: KvCache, num_cached: int) -> Callable[[], object]:
    table_W = torch.randperm(cache._data.shape[2])[: num_cached // BLOCK]
    q_THP = torch.randn(CHUNK, HEADS, HEAD_DIM).bfloat16()
    gather = partial(cache.gather, 0)
    return lambda: attend_chunk(q_THP, num_cached, table_W, BLOCK, gather)


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
    small, large = make_cache(max(CONTEXTS)), make_cache(GROWTH * max(CONTEXTS))
    works = {f"decode {context}": decode(small, [context]) for context in CONTEXTS}
    works |= {f"large {context}": decode(large, [context]) for context in CONTEXTS}
    works["decode 7 x 128 + 32768"] = decode(large, [128] * 7 + [32_768])
    works |= {f"chunk {n}": chunk(small, n) for n in CHUNK_CONTEXTS}
    us = measure(works, options.rounds)
    first, last = CONTEXTS[0], CONTEXTS[-1]
    base, end = us[f"decode {first}"], us[f"decode {last}"]
    line = {n: base + (end - base) * (n - first) / (last - first) for n in CONTEXTS}
    print(
        json.dumps(
            {
                "bench": "attention",
                "threads": options.threads,
                "decode_us": {str(n): us[f"decode {n}"] for n in CONTEXTS},
                "linear": {str(n): round(us[f"decode {n}"] / line[n], 3) for n in CONTEXTS},
                "large_cache": round(
                    statistics.median(us[f"large {n}"] / us[f"decode {n}"] for n in CONTEXTS), 3
                ),
                "mixed_us": us["decode 7 x 128 + 32768"],
                "chunk_us": {str(n): us[f"chunk {n}"] for n in CHUNK_CONTEXTS},
            }
        )
    )


if __name__ == "__main__":
    main()
