"""What does a call to a pool's experts on this GPU take, host to host, beyond its kernels?

    .venv/bin/python bench/kernels/gpu_calls.py [--formats fp8,int4_g128]

For each number of rows, medians over calls to distinct layers: `us` from rows in the host's memory
to sums there, `graph_us` of the graph alone, `copies_us` with tensors copied one by one (as before
there were graphs), `limit_us` of the bytes of the experts picked at the copy rate. JSON comes last.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor

from bench.engine.gpu import M2
from bench.kernels.gpu_experts import copy_rate, expert_bytes, picks, random_experts, seconds
from moe_model.families.known import parse_config
from moe_model.kernels.cuda.experts import CudaExperts
from moe_model.kernels.cuda.graphs.calls import CudaCalls
from moe_model.maths.expert_calls import CallRows

ROWS = (1, 8, 32, 64, 128, 512, 2048)
LAYERS = 4
CALLS = 40


def call_of(num_rows: int, seed: int) -> CallRows:
    ids = picks(num_rows, seed, 0.0).cpu().long()
    return CallRows(
        torch.randn(num_rows, M2["hidden_size"]).bfloat16(),
        torch.arange(num_rows).repeat_interleave(ids.shape[1]),
        ids.flatten(),
        torch.full((ids.numel(),), 0.125),
    )


def in_room(calls: CudaCalls, call: CallRows) -> CallRows:
    """The call where a frame would have been unpacked."""
    room = calls.room(call.hidden_ND.shape[0], call.weights_M.shape[0])
    room.hidden_ND.copy_(call.hidden_ND)
    room.weights_M.copy_(call.weights_M)
    return CallRows(room.hidden_ND, call.row_of_pair_M, call.expert_ids_M, room.weights_M)


def by_copies(held: CudaExperts, call: CallRows) -> Tensor:
    there = (call.hidden_ND, call.row_of_pair_M, call.expert_ids_M, call.weights_M)
    return held.sums(*(part.to(held.device) for part in there)).cpu()


def measure(calls: CudaCalls, layers: list[CudaExperts], num_rows: int) -> dict[str, Any]:
    given = [call_of(num_rows, seed) for seed in range(LAYERS)]
    whole_us, copies_us, is_equal = [], [], True
    for turn in range(LAYERS + CALLS):  # the first of each layer makes its graph
        held, call = layers[turn % LAYERS], given[turn % LAYERS]
        room, slots_M = in_room(calls, call), call.expert_ids_M.numpy()
        start = time.perf_counter()
        found = calls.run(held, room, slots_M, per_pair=False)
        whole_us.append((time.perf_counter() - start) * 1e6)
        found = found.clone()
        start = time.perf_counter()
        expected = by_copies(held, call)
        copies_us.append((time.perf_counter() - start) * 1e6)
        is_equal &= torch.equal(found, expected)
    return {
        "us": round(statistics.median(whole_us[LAYERS:]), 1),
        "copies_us": round(statistics.median(copies_us[LAYERS:]), 1),
        "equal": is_equal,
    }


def kernels_us(layers: list[CudaExperts], num_rows: int) -> float:
    """Of the launches of a call, replayed back to back."""
    device = layers[0].device
    calls = [call_of(num_rows, seed) for seed in range(LAYERS)]
    there = [
        [part.to(device) for part in (c.hidden_ND, c.row_of_pair_M, c.expert_ids_M, c.weights_M)]
        for c in calls
    ]

    def run() -> None:
        for held, parts in zip(layers, there, strict=True):
            held.sums(*parts)

    run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return round(seconds(graph.replay) / LAYERS * 1e6, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--formats", default="fp8,int4_g128")
    formats = parser.parse_args().formats.split(",")
    config, device, rate = parse_config(M2), torch.device("cuda"), copy_rate()
    found: dict[str, Any] = {"copy_tb_s": round(rate / 1e12, 3)}
    for name in formats:
        layers = [random_experts(name, seed) for seed in range(LAYERS)]
        calls = CudaCalls(config, device)
        for held in layers:
            calls.prepare(held)
        for num_rows in ROWS:
            row = measure(calls, layers, num_rows)
            row["graph_us"] = kernels_us(layers, num_rows)
            used = statistics.mean(picks(num_rows, s, 0.0).unique().numel() for s in range(LAYERS))
            row["limit_us"] = round(used * expert_bytes(name) / rate * 1e6, 1)
            found[f"{name} {num_rows}"] = row
            print(name, num_rows, row, file=sys.stderr, flush=True)
        del layers, calls
        torch.cuda.empty_cache()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
