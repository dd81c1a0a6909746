"""How long does a GPU take to code an expert of M2 that a checkpoint stores in FP8?

    .venv/bin/python bench/kernels/gpu_packing.py

Seconds an expert from the GPU's memory and from the host's, medians, and what all of M2 would take.
Prints JSON last.
"""

import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from moe_model.kernels.cuda.codes import FORMATS, encode
from moe_model.quant import StoredMatrix, quantise

SHAPES = ((1536, 3072), (1536, 3072), (3072, 1536))
EXPERTS = 62 * 256
ROUNDS = 20


def expert() -> list[StoredMatrix]:
    made = []
    for shape in SHAPES:
        codes, scales = quantise(torch.randn(shape) / 30)
        made.append(StoredMatrix(values=codes, scales=scales, block=(128, 128), where="w"))
    return made


def on_gpu(stored: StoredMatrix) -> StoredMatrix:
    assert stored.scales is not None
    return replace(stored, values=stored.values.cuda(), scales=stored.scales.cuda())


def seconds(parts: list[StoredMatrix], name: str) -> float:
    times = []
    for _ in range(ROUNDS + 1):  # the first compiles
        torch.cuda.synchronize()
        start = time.perf_counter()
        for part in parts:
            encode(part, FORMATS[name], torch.device("cuda"))
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    on_host = expert()
    sources = {"gpu": [on_gpu(part) for part in on_host], "host": on_host}
    found = {}
    for name in FORMATS:
        for where, parts in sources.items():
            took_s = seconds(parts, name)
            found[f"{name} from {where}"] = {
                "ms_an_expert": round(took_s * 1e3, 3),
                "m2_s": round(took_s * EXPERTS, 1),
            }
            print(name, where, found[f"{name} from {where}"], file=sys.stderr, flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
