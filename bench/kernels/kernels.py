"""How near do the CPU kernels come to the memory's read rate and to the GEMM peak?

One layer's experts and a linear of M2's widths, in every packed format that this CPU has
a kernel for, at 1, 8, 32, 64 and 512 rows per expert; then M2's whole layer of 256 experts,
top-8 of them at random for 1, 8 and 32 tokens (fewer experts where memory is short: said on
stderr); then attention of 1 and 8 decode rows over 8,192 positions each, in blocks out of order,
keys and values in bf16 and int8. Read and kernel alternate in one process; medians. The last line
is JSON:

`stream_read_gbps` the rate at which the same threads only read (the better of two ways);
`gemm_bf16_gflops` torch's best bfloat16 GEMM over a few large shapes; and for each kernel,
format and number of rows `gbps` of packed weights (of keys and values), `gflops`, and `roofline`:
the least time that reading at that rate or arithmetic at its peak would take, over the time it
took. The peak is torch's GEMM rate, for 8-bit arithmetic (int8, int4) twice that, as the
instructions do twice as much. `fraction` is given where there is a limit to hold: of the read rate
at one row and in decode attention, of the GEMM rate at 32.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import psutil
import torch
import torch.nn.functional as F

from attention_svc.config import BLOCK_SIZE
from attention_svc.kv.cache import KvCache
from moe_model.host_memory import empty_bytes
from moe_model.kernels.cpu import library
from moe_model.kernels.cpu.attention import PagedRows, attend_paged, takes_tiles
from moe_model.kernels.cpu.ffn import KernelExperts, expert_sums
from moe_model.kernels.cpu.formats import FORMATS
from moe_model.kernels.cpu.packed import PackedMatrix
from moe_model.kernels.cpu.paged_rows import TiledLayout
from moe_model.maths.kv_layout import Int8Layout, KVLayout, PlainLayout
from moe_model.maths.linear import linear
from tests.support.moe_model.float_packing import alternate, pack

HIDDEN, EXPERT, OUTPUTS, TOP_K = 3072, 1536, 32_768, 8
EXPERTS, LAYER_EXPERTS = 16, 256
ROWS = (1, 8, 32, 64, 512)
LAYER_TOKENS = (1, 8, 32)
GEMM_SHAPES = ((2048, 3072, 3072), (4096, 4096, 4096), (2048, 3072, 8192))
HEADS, KV_HEADS, HEAD_DIM, CONTEXT = 48, 8, 128, 8192
DECODE_ROWS = (1, 8)
READ_BYTES = 512 << 20
SPARE_BYTES = 2 << 30

LIMITS = {
    **{(name, "bf16", 1): 0.95 for name in ("expert_ffn", "linear")},
    **{(name, kind, 1): 0.85 for name in ("expert_ffn", "linear") for kind in ("int8", "int4")},
    **{(name, "fp8", 1): 0.70 for name in ("expert_ffn", "linear")},
    **{(name, "bf16", 32): 0.90 for name in ("expert_ffn", "linear")},
    **{(name, "int8", 32): 1.5 for name in ("expert_ffn", "linear")},
    ("decode_attention", "bf16", 8): 0.70,
}
"""Of the read rate at one row and in decode attention, of torch's GEMM rate at 32."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """`run` reads `size_bytes` of weights and makes `num_flops`."""

    name: str
    format: str
    rows: int
    size_bytes: int
    num_flops: int
    run: Callable[[], object]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def copied(gate_up: PackedMatrix, down: PackedMatrix) -> Iterator[PackedMatrix]:
    """The same expert elsewhere in memory, in one piece: packing each anew would take minutes."""
    both = torch.cat((gate_up.data, down.data))
    data = empty_bytes(both.numel()).copy_(both)
    for matrix, part in zip((gate_up, down), data.split(gate_up.data.numel()), strict=True):
        yield PackedMatrix(matrix.format, matrix.num_outputs, matrix.num_inputs, part)


def hold(format: str, num_experts: int) -> KernelExperts:
    """`num_experts` alike experts, each in memory of its own."""
    held = KernelExperts(num_experts, HIDDEN, EXPERT, format)
    w1, w3 = torch.randn(2, EXPERT, HIDDEN).mul_(0.02).bfloat16()
    gate_up = pack(alternate(w1, w3), format)
    down = pack(torch.randn(HIDDEN, EXPERT).mul_(0.02).bfloat16(), format)
    for slot in range(num_experts):
        held.put_packed(slot, *copied(gate_up, down))
    return held


def expert_bytes(format: str) -> int:
    weights = FORMATS[format]
    return weights.size_bytes(2 * EXPERT, HIDDEN) + weights.size_bytes(HIDDEN, EXPERT)


def ffn_case(name: str, rows: int, held: KernelExperts, slots_NK: torch.Tensor) -> Case:
    num_rows, top_k = slots_NK.shape
    hidden_ND = torch.randn(num_rows, HIDDEN).bfloat16()
    row_of_pair_M = torch.arange(num_rows).repeat_interleave(top_k)
    slots_M = slots_NK.flatten()
    weights_M = torch.rand(slots_M.shape)
    return Case(
        name=name,
        format=held.format,
        rows=rows,
        size_bytes=slots_M.unique().numel() * expert_bytes(held.format),
        num_flops=2 * slots_M.numel() * 3 * HIDDEN * EXPERT,
        run=lambda: expert_sums(hidden_ND, row_of_pair_M, slots_M, weights_M, held),
    )


def ffn_cases(format: str) -> Iterator[Case]:
    held = hold(format, EXPERTS)
    for rows in ROWS:
        slots_NK = torch.arange(EXPERTS).view(-1, TOP_K).repeat(rows, 1)
        yield ffn_case("expert_ffn", rows, held, slots_NK)


def linear_cases(format: str) -> Iterator[Case]:
    weight = pack(torch.randn(OUTPUTS, HIDDEN).bfloat16(), format)
    for rows in ROWS:
        rows_TD = torch.randn(rows, HIDDEN).bfloat16()
        yield Case(
            name="linear",
            format=format,
            rows=rows,
            size_bytes=weight.data.numel(),
            num_flops=2 * rows * OUTPUTS * HIDDEN,
            run=lambda rows_TD=rows_TD: linear(rows_TD, weight),
        )


def layer_cases(format: str) -> Iterator[Case]:
    room = psutil.virtual_memory().available - SPARE_BYTES
    num_experts = min(LAYER_EXPERTS, room // expert_bytes(format))
    if num_experts < TOP_K:
        say(f"m2_layer {format}: no memory for it")
        return
    if num_experts < LAYER_EXPERTS:
        say(f"m2_layer {format}: memory for {num_experts} of {LAYER_EXPERTS} experts only")
    held = hold(format, num_experts)
    for tokens in LAYER_TOKENS:
        # Chosen among 256; where fewer are in memory, several share one.
        picks = [torch.randperm(LAYER_EXPERTS)[:TOP_K] % num_experts for _ in range(tokens)]
        yield ffn_case("m2_layer", tokens, held, torch.stack(picks).sort(dim=1)[0])


def attention_cases(format: str) -> Iterator[Case]:
    """A decode row each of some sequences over its whole context."""
    if format not in ("bf16", "int8"):
        return
    layout: KVLayout
    if format == "int8":
        layout = Int8Layout(KV_HEADS, HEAD_DIM)
    elif takes_tiles(torch.bfloat16, HEADS, KV_HEADS, HEAD_DIM, BLOCK_SIZE):
        layout = TiledLayout(KV_HEADS, HEAD_DIM)
    else:
        layout = PlainLayout(KV_HEADS, HEAD_DIM, torch.bfloat16)
    width, most = CONTEXT // BLOCK_SIZE, max(DECODE_ROWS)
    cache = KvCache(
        layout,
        num_layers=1,
        num_blocks=most * width,
        block_size=BLOCK_SIZE,
        device=torch.device("cpu"),
    )
    for slots_T in torch.arange(most * CONTEXT).split(4096):
        k, v = torch.randn(2, len(slots_T), KV_HEADS, HEAD_DIM).bfloat16()
        cache.store(0, k, v, slots_T)
    tables = torch.randperm(most * width)
    for rows in DECODE_ROWS:
        row_B = torch.arange(rows)
        ones_B = torch.ones_like(row_B)
        segments = torch.stack((row_B, ones_B, ones_B * CONTEXT, row_B * width), dim=1)
        q_BHP = torch.randn(rows, HEADS, HEAD_DIM).bfloat16()
        paged = PagedRows(segments, tables)
        yield Case(
            name="decode_attention",
            format=format,
            rows=rows,
            size_bytes=2 * cache.pages(0)[0].nbytes // most * rows,
            num_flops=4 * rows * HEADS * HEAD_DIM * CONTEXT,
            run=lambda q=q_BHP, p=paged: attend_paged(q, *cache.pages(0), KV_HEADS, p),
        )


MAKERS = {
    "expert_ffn": ffn_cases,
    "linear": linear_cases,
    "m2_layer": layer_cases,
    "decode_attention": attention_cases,
}


class Machine:
    """What this machine can do, measured beside the kernels again and again."""

    def __init__(self, rounds: int):
        native = library.need().native
        self._buffer = empty_bytes(READ_BYTES).fill_(1)
        self.rounds = rounds
        self._reads = [
            lambda piece=piece: native.stream_read(self._buffer.data_ptr(), READ_BYTES, piece)
            for piece in (384 << 10, 4 << 20)
        ]
        self.read_gbps: list[float] = []

    def read(self) -> float:
        """GB/s now."""
        self.read_gbps.append(READ_BYTES / min(seconds(read) for read in self._reads) / 1e9)
        return self.read_gbps[-1]

    def gemm_gflops(self) -> float:
        best = 0.0
        for m, k, n in GEMM_SHAPES:
            rows, weight = torch.randn(m, k).bfloat16(), torch.randn(n, k).bfloat16()
            times = [seconds(lambda r=rows, w=weight: F.linear(r, w)) for _ in range(4)][1:]
            best = max(best, 2e-9 * m * k * n / statistics.median(times))
        return best

    def measure(self, case: Case, gemm: float) -> dict[str, float]:
        case.run()
        times, reads = [], []
        for _ in range(self.rounds):
            reads.append(self.read())
            times.append(seconds(case.run))
        taken = statistics.median(times)
        gbps, gflops = case.size_bytes / taken / 1e9, case.num_flops / taken / 1e9
        # Another machine's load comes and goes: a read and the run after it are compared.
        read_ratio = statistics.median(
            case.size_bytes / t / 1e9 / read for t, read in zip(times, reads, strict=True)
        )
        eight_bits = case.format.startswith("int") and case.name != "decode_attention"
        peak = gemm * (2 if eight_bits else 1)
        found = {"gbps": gbps, "gflops": gflops, "roofline": max(read_ratio, gflops / peak)}
        limit = LIMITS.get((case.name, case.format, case.rows))
        if limit is not None:
            of_read = case.rows == 1 or case.name == "decode_attention"
            found["fraction"] = read_ratio if of_read else gflops / gemm
        say(
            f"{case.name:16} {case.format:9} {case.rows:4}  {gbps:6.1f} GB/s {gflops:7.0f} GFLOP/s"
            f"  roofline {found['roofline']:.2f}"
            + (f"  fraction {found['fraction']:.3f}, limit {limit}" if limit else "")
        )
        return {key: round(value, 3) for key, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--formats", nargs="+", choices=[*FORMATS], help="default: every one")
    parser.add_argument(
        "--kernels",
        nargs="+",
        choices=[*MAKERS],
        default=[*MAKERS],
    )
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    native = library.need()
    native.set_threads(options.threads)
    here = [
        name
        for name, weights in FORMATS.items()
        if weights.id in native.format_ids
        and weights.row_dtype == torch.bfloat16
        and name in (options.formats or FORMATS)
    ]
    machine = Machine(options.rounds)
    gemm = machine.gemm_gflops()
    say(f"{native.isa}, {options.threads} threads, torch GEMM {gemm:.0f} GFLOP/s")
    kernels: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for format in here:
        for name in options.kernels:
            if name == "m2_layer" and format == "bf16":
                continue  # 14 GB
            for case in MAKERS[name](format):
                found = machine.measure(case, gemm)
                kernels.setdefault(name, {}).setdefault(format, {})[str(case.rows)] = found
    print(
        json.dumps(
            {
                "bench": "kernels",
                "isa": native.isa,
                "threads": options.threads,
                "stream_read_gbps": round(statistics.median(machine.read_gbps), 2),
                "gemm_bf16_gflops": round(gemm, 1),
                "kernels": kernels,
            }
        )
    )


if __name__ == "__main__":
    main()
