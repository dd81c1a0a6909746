"""How fast do a layer's experts run on this GPU? Against the rate at which it copies memory.

The floor is the bytes of the experts picked, over the copy rate: each weight is read once. Layers
have distinct weights, so that nothing is found in a cache, and run from one CUDA graph. Prints
JSON last.
"""

import argparse
import itertools
import json
import statistics
from types import SimpleNamespace

import torch

from moe_model.kernels.cuda import experts as cuda_experts
from moe_model.kernels.cuda.codes import FORMATS, decode
from moe_model.kernels.cuda.experts import CudaExperts, Tiling

HIDDEN, EXPERT, NUM_EXPERTS, TOP_K = 3072, 1536, 256, 8


def copy_rate() -> float:
    """Bytes a second, read and written."""
    source = torch.empty(2 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / seconds(lambda: target.copy_(source))


def seconds(run, repeats: int = 20) -> float:
    """Median by events."""
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop) / 1e3)
    return statistics.median(times)


def random_experts(weight_format: str, seed: int) -> CudaExperts:
    config = SimpleNamespace(hidden_size=HIDDEN, expert_size=EXPERT)
    held = CudaExperts(NUM_EXPERTS, config, weight_format, torch.device("cuda"))
    generator = torch.Generator("cuda").manual_seed(seed)
    for codes in (held.up_codes, held.down_codes):
        if codes.dtype == torch.bfloat16:
            for part in codes.view(-1).split(1 << 28):
                part.normal_(0, 0.02, generator=generator)
            continue
        flat = codes.view(-1)
        for part in flat.split(1 << 28):
            part.random_(0, 256, generator=generator)
            if weight_format == "fp8":
                part.bitwise_and_(0b10111111)  # magnitudes below 2: no NaN
    for scales, inputs in ((held.up_scales, HIDDEN), (held.down_scales, EXPERT)):
        if scales.numel():
            spread = (0.5 if weight_format == "fp8" else 4.6) * inputs**0.5
            scales.fill_(1.0 / spread)
    return held


def picks(num_rows: int, seed: int, skew: float) -> torch.Tensor:
    generator = torch.Generator("cuda").manual_seed(seed)
    logits = torch.randn(num_rows, NUM_EXPERTS, generator=generator, device="cuda")
    if skew:
        logits += skew * torch.randn(NUM_EXPERTS, generator=generator, device="cuda")
    return logits.topk(TOP_K).indices.sort(dim=-1).values.int()


def expert_bytes(weight_format: str) -> float:
    made = FORMATS[weight_format]
    total = 0
    for outputs, inputs, count in ((EXPERT, HIDDEN, 2), (HIDDEN, EXPERT, 1)):
        total += count * outputs * inputs * made.bits / 8
        rows, columns = made.scales_shape(outputs, inputs)
        total += count * rows * columns * made.scale_dtype.itemsize
    return total


def layer_seconds(layers, num_rows: int, skew: float = 0.0) -> tuple[float, float]:
    """Seconds a layer, and experts picked a layer."""
    rows = [torch.randn(num_rows, HIDDEN, device="cuda").bfloat16() for _ in layers]
    ids = [picks(num_rows, 7 * i, skew) for i in range(len(layers))]
    weights = torch.full((num_rows, TOP_K), 1 / TOP_K, device="cuda")
    out = torch.empty(num_rows, HIDDEN, device="cuda")

    def run() -> None:
        for held, row, chosen in zip(layers, rows, ids, strict=True):
            held.routed_sums(row, chosen, weights, out)

    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    used = statistics.mean(len(chosen.unique()) for chosen in ids)
    return seconds(graph.replay) / len(layers), used


def check(held: CudaExperts, num_rows: int) -> dict[str, object]:
    """Error against float64, and whether a row's bits depend on others."""
    rows = torch.randn(num_rows, HIDDEN, device="cuda").bfloat16()
    ids, weights = picks(num_rows, 3, 0.0), torch.rand(num_rows, TOP_K, device="cuda")
    out = torch.full((num_rows, HIDDEN), float("nan"), device="cuda")
    held.routed_sums(rows, ids, weights, out)
    expected = torch.zeros(HIDDEN, dtype=torch.float64, device="cuda")
    for k in range(TOP_K):
        parts = held.get(int(ids[-1, k]))
        shapes = ((EXPERT, HIDDEN), (EXPERT, HIDDEN), (HIDDEN, EXPERT))
        w1, w3, w2 = (decode(c, *s).double() for c, s in zip(parts, shapes, strict=True))
        gate, up = w1 @ rows[-1].double(), w3 @ rows[-1].double()
        act = (torch.nn.functional.silu(gate) * up).bfloat16().double()
        expected += (w2 @ act * weights[-1, k].double()).bfloat16().double()
    error = float((out[-1] - expected).norm() / expected.norm())
    alone = torch.empty(1, HIDDEN, device="cuda")
    held.routed_sums(rows[-1:], ids[-1:].contiguous(), weights[-1:], alone)
    again = torch.empty_like(out)
    held.routed_sums(rows, ids, weights, again)
    return {
        "error": error,
        "alone_equal": bool(torch.equal(alone[0], out[-1])),
        "again_equal": bool(torch.equal(again, out)),
    }


def kernel_us(layers, num_rows: int) -> dict[str, float]:
    """Mean time of each kernel."""
    rows = torch.randn(num_rows, HIDDEN, device="cuda").bfloat16()
    ids = [picks(num_rows, 7 * i, 0.0) for i in range(len(layers))]
    weights = torch.full((num_rows, TOP_K), 0.125, device="cuda")
    out = torch.empty(num_rows, HIDDEN, device="cuda")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as found:
        for _ in range(6):
            for held, chosen in zip(layers, ids, strict=True):
                held.routed_sums(rows, chosen, weights, out)
        torch.cuda.synchronize()
    return {
        event.key: round(event.self_device_time_total / event.count, 1)
        for event in found.key_averages()
        if event.self_device_time_total
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--formats", default="fp8,int4_g128,bf16")
    parser.add_argument("--rows", default="1,8,64")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--tune", action="store_true", help="try tilings")
    args = parser.parse_args()
    rate = copy_rate()
    found: dict[str, object] = {"copy_tb_per_s": round(rate / 1e12, 3)}
    print(torch.cuda.get_device_name(), found, flush=True)
    all_rows = [int(n) for n in args.rows.split(",")]
    plain = cuda_experts.tilings
    for name in args.formats.split(","):
        layers = [random_experts(name, seed) for seed in range(args.layers)]
        for num_rows in (1, 7, 64, 129, 2000):
            print(name, num_rows, check(layers[0], num_rows), flush=True)
        floor = expert_bytes(name) / rate
        for num_rows in all_rows:
            candidates = [None]
            if args.tune:
                candidates += [
                    Tiling(b, rows, warps, stages)
                    for b, rows, warps, stages in itertools.product(
                        (16, 32, 64), (8, 16) if num_rows <= 8 else (16,), (1, 2), (2, 3)
                    )
                    if b >= warps * 16
                ]
            for tiling in candidates:
                if tiling is not None:
                    cuda_experts.tilings = lambda *_, t=tiling: (t, t)
                try:
                    took, used = layer_seconds(layers, num_rows)
                    kernels = kernel_us(layers, num_rows)
                except Exception as error:  # a tile too large for this card
                    print(name, num_rows, tiling, type(error).__name__, str(error)[:80])
                    continue
                finally:
                    cuda_experts.tilings = plain
                share = floor * used / took
                print(
                    f"{name} rows {num_rows} {tiling or 'default'}: {took * 1e6:.1f} us, "
                    f"{used:.0f} experts, {share:.3f} of the copy rate",
                    kernels,
                    flush=True,
                )
                if tiling is None:
                    found[f"{name}_{num_rows}"] = round(share, 3)
        del layers
        torch.cuda.empty_cache()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
