"""How long does it take to bring FP8 weights into each format, as loading and `model quantise` do?

One expert of M2's widths, FP8 codes with block scales, packed with the threads given; formats
alternate, medians. A table on standard error; the last line on standard output is JSON:
`seconds_per_fp8_gb` by format.

    .venv/bin/python bench/kernels/packing.py [--rounds 5] [--threads 2]
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from expertmesh.cluster.machine import usable_cores
from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.packing import pack_expert
from moe_model.quant import StoredExpert, StoredMatrix, quantise

HIDDEN, EXPERT = 3072, 1536
FORMATS = ("bf16", "fp8", "int8", "int4", "int4_g128")
BLOCK = (128, 128)


def stored(outputs: int, inputs: int) -> StoredMatrix:
    codes, scales = quantise(torch.randn(outputs, inputs) / inputs**0.5, *BLOCK)
    return StoredMatrix(values=codes, scales=scales, block=BLOCK, where="bench")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=usable_cores())
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    native = library.need()
    expert = StoredExpert(
        w1=stored(EXPERT, HIDDEN), w3=stored(EXPERT, HIDDEN), w2=stored(HIDDEN, EXPERT)
    )
    fp8_gb = 3 * HIDDEN * EXPERT / 1e9
    rates: dict[str, list[float]] = {format: [] for format in FORMATS}
    for _ in range(options.rounds):
        for format in FORMATS:
            start = time.perf_counter()
            pack_expert(expert, format)
            rates[format].append((time.perf_counter() - start) / fp8_gb)
    for format, found in rates.items():
        print(
            f"{format:9} {statistics.median(found):.2f} s/GB of FP8 "
            f"({min(found):.2f} to {max(found):.2f})",
            file=sys.stderr,
        )
    medians = {format: round(statistics.median(found), 3) for format, found in rates.items()}
    result = {"bench": "packing", "isa": native.isa, "threads": options.threads}
    print(json.dumps({**result, "seconds_per_fp8_gb": medians}))


if __name__ == "__main__":
    main()
