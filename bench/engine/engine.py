"""How fast are decode and prefill beside Transformers and llama.cpp, and what does the split cost?

Engines on the real-width slice (`bench/engine/real_width.py`): `in_process` (an attention service
with its experts in it), `split` (two pools with alternate layers), `split_expert_striped` (two
pools with half of every layer's experts), `transformers` (MiniMaxM2ForCausalLM, grouped_mm), and
`llama_cpp` if a `llama-batched-bench` and a GGUF of the slice are given. In bfloat16, and in other
formats with `--formats` (`in_process/int8`), where only ours and llama.cpp run, with a GGUF of the
same class (Q8_0 for int8, Q4_0 for int4). Rounds alternate the engines; as many are held at once as
memory allows. Medians over the rounds.

    .venv/bin/python bench/engine/engine.py [--rounds 3] [--engines in_process,transformers]
    .venv/bin/python bench/engine/engine.py --engines in_process --formats int8 \\
        --llama-model int8=slice-q8_0.gguf

Progress is on standard error; the last line on standard output is JSON: tokens per second by engine
and batch (decode) or prompt length (prefill), the same per CPU second of all the engine's processes
(less noisy than the clock on a busy machine), and `engine_share`, the share of the time from
request to last token that is neither attention nor expert calls. `formats` compares in_process by
format with the roofline (`bench/engine/roofline.py`; its read rate is measured before and after
each cell) and with llama.cpp: `ratio`, `of_roofline`, `goal`, `of_goal`.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from bench.engine.engines import Engine, Served, Transformers
from bench.engine.llama import LlamaCpp
from bench.engine.real_width import ensure_slice
from bench.engine.roofline import Cell, Rates, compare
from bench.kernels.kernels import Machine
from expertmesh.cluster.machine import usable_cores
from moe_model.config import ModelConfig
from moe_model.formats import attention_bytes, piece_bytes
from moe_model.kernels.cpu import library
from moe_model.weights.packed_header import PACKED_FORMATS
from rpc.process.memory import available_memory_bytes

ENGINES = ("in_process", "split", "split_expert_striped", "transformers")
BATCHES = (1, 4, 8, 16, 32)
LENGTHS = (256, 2048)
SHARE_BATCHES = (1, 32)
PROCESS_BYTES = 1 << 30
"""What an engine holds beyond its weights: interpreters, KV cache, activations."""

Values = dict[str, Any]
"""{"decode" | "prefill" | "decode beside" | "share" | ...: {engine: {size: [one per round]}}}."""


class Stage:
    """The engines that are up; the one idle longest is stopped when memory is short."""

    def __init__(self, engines: dict[str, Engine], weight_bytes: int, reserve_bytes: int):
        self._engines = engines
        self._need = weight_bytes + PROCESS_BYTES
        self._reserve = reserve_bytes
        self._up: list[str] = []

    @property
    def all_fit(self) -> bool:
        return available_memory_bytes() > len(self._engines) * self._need + self._reserve

    def get(self, name: str) -> Engine:
        if name in self._up:
            self._up.remove(name)
        else:
            while self._up and available_memory_bytes() < self._need + self._reserve:
                self._engines[self._up.pop(0)].stop()
            if available_memory_bytes() < self._need + self._reserve:
                raise SystemExit(f"{name} needs {self._need} bytes, with {self._reserve} to spare")
            say(f"starting {name}")
            self._up.append(name)  # stopped with the others even if it fails to start
            self._engines[name].start()
            return self._engines[name]
        self._up.append(name)
        return self._engines[name]

    def clear(self) -> None:
        for name in self._up:
            self._engines[name].stop()
        self._up.clear()


def run(
    options: argparse.Namespace,
    engines: dict[str, Engine],
    config: ModelConfig,
    format: str,
    values: Values,
) -> None:
    """Run all rounds of one format and append the results to `values`."""
    weight_bytes = attention_bytes(config, "bf16", format)
    weight_bytes += config.num_pieces * piece_bytes(config, format)
    stage = Stage(engines, weight_bytes, options.reserve_gib << 30)
    machine = Machine(1)
    cells: list[Cell] = [("decode", batch) for batch in options.batches]
    cells += [("prefill", length) for length in options.lengths]
    try:
        finely = stage.all_fit
        for round_idx in range(options.rounds):
            gemm_gflops = machine.gemm_gflops()
            names = list(engines) if round_idx % 2 == 0 else list(engines)[::-1]
            pairs = (
                [(name, cell) for cell in cells for name in names]
                if finely
                else [(name, cell) for name in names for cell in cells]
            )
            for name, (kind, size) in pairs:
                engine = stage.get(name)
                before_gbps = machine.read()
                result = engine.measure(kind, size, options.tokens, seed=round_idx)
                read_gbps = (before_gbps + machine.read()) / 2
                rates = Rates(read_gbps=read_gbps, gemm_gflops=gemm_gflops)
                values[kind][name][size].append(result.tokens_per_s)
                values[f"{kind} beside"][name][size].append(rates)
                if result.tokens_per_cpu_s is not None:
                    values[f"{kind} cpu"][name][size].append(result.tokens_per_cpu_s)
                if result.engine_share is not None:
                    values["share"][name][size].append(result.engine_share)
                if isinstance(engine, Served):
                    values["load"][name] = engine.expert_load()
                per_cpu_s = result.tokens_per_cpu_s
                say(
                    f"round {round_idx + 1}: {name} {kind} {size}: "
                    f"{result.tokens_per_s:.1f} tokens/s"
                    + (f", {per_cpu_s:.1f} per CPU second" if per_cpu_s else "")
                    + f" (read {rates.read_gbps:.1f} GB/s, load {os.getloadavg()[0]:.1f})"
                )
    finally:
        stage.clear()


def against_roofline(values: Values, config: ModelConfig, format: str) -> dict[str, Any]:
    """Each cell of in_process; empty if it did not run."""
    ours, peer = engine_name("in_process", format), engine_name("llama_cpp", format)
    load, found = values["load"].get(ours), {}
    for kind in ("decode", "prefill"):
        for size, rates in values[kind][ours].items() if load else ():
            cell = compare(
                config,
                format,
                load,
                (kind, size),
                rates,
                values[f"{kind} beside"][ours][size],
                values[kind][peer][size],
            )
            found.setdefault(kind, {})[str(size)] = cell
            say(f"{format} {kind} {size}: {json.dumps(cell)}")
    return found


def report(values: Values, options: argparse.Namespace) -> dict[str, Any]:
    """The last line: medians over the rounds."""

    def medians(kind: str, digits: int) -> dict[str, dict[str, float]]:
        return {
            name: {str(size): round(statistics.median(v), digits) for size, v in cells.items() if v}
            for name, cells in values[kind].items()
        }

    shares = medians("share", 4)
    counted = [
        share
        for cells in shares.values()
        for size, share in cells.items()
        if int(size) in SHARE_BATCHES
    ]
    beside = [
        rates
        for kind in ("decode beside", "prefill beside")
        for cells in values[kind].values()
        for found in cells.values()
        for rates in found
    ]
    return {
        "bench": "engine",
        "rounds": options.rounds,
        "tokens_per_stream": options.tokens,
        "cores": usable_cores(),
        "stream_read_gbps": round(statistics.median(rates.read_gbps for rates in beside), 2),
        "gemm_bf16_gflops": round(statistics.median(rates.gemm_gflops for rates in beside), 1),
        "decode_tokens_per_s": medians("decode", 2),
        "prefill_tokens_per_s": medians("prefill", 1),
        "decode_tokens_per_cpu_s": medians("decode cpu", 2),
        "prefill_tokens_per_cpu_s": medians("prefill cpu", 1),
        "engine_share": max(counted, default=None),
        "engine_shares": shares,
    }


def engine_name(name: str, format: str) -> str:
    return name if format == "bf16" else f"{name}/{format}"


def make_engines(
    options: argparse.Namespace, model: Path, config: ModelConfig, logs: Path, format: str
) -> dict[str, Engine]:
    """The engines that exist in a format, by name, in the order asked for."""
    made: dict[str, Engine] = {}
    for name in options.engines:
        if name == "transformers":
            if format == "bf16":
                made[name] = Transformers(model, config.vocab_size, logs, options.threads)
        else:
            folder = logs / f"{name}-{format}"
            made[engine_name(name, format)] = Served(
                name, model, config, folder, options.threads, options.split_threads, format
            )
    if options.llama_bench and format in options.llama_model:
        llama = LlamaCpp(options.llama_bench, options.llama_model[format], options.threads)
        made[engine_name("llama_cpp", format)] = llama
    return made


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    folder = Path(base) if base else Path.home() / ".cache"
    return folder if os.access(folder, os.W_OK) else Path(tempfile.gettempdir())


def main() -> None:
    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder of the slice")
    parser.add_argument("--engines", type=lambda t: t.split(","), default=list(ENGINES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=24, help="decoded tokens of each sequence")
    parser.add_argument("--batches", type=numbers, default=list(BATCHES))
    parser.add_argument("--lengths", type=numbers, default=list(LENGTHS))
    parser.add_argument(
        "--threads", type=int, default=usable_cores(), help="threads of an engine of one process"
    )
    parser.add_argument(
        "--split-threads", type=int, help="threads of each process of `split` (default: --threads)"
    )
    parser.add_argument("--reserve-gib", type=int, default=4, help="memory left to other processes")
    parser.add_argument("--llama-bench", default=shutil.which("llama-batched-bench"))
    parser.add_argument(
        "--llama-model",
        action="append",
        default=[],
        metavar="[FORMAT=]PATH",
        help="the slice as GGUF (bench/engine/slice_to_gguf.py; default bf16); adds llama_cpp",
    )
    parser.add_argument(
        "--formats",
        type=lambda t: t.split(","),
        default=["bf16"],
        help=f"some of {', '.join(PACKED_FORMATS)}",
    )
    options = parser.parse_args()
    unknown = set(options.engines) - set(ENGINES)
    if unknown:
        parser.error(f"--engines: some of {', '.join(ENGINES)}, got {', '.join(sorted(unknown))}")
    given = [text.rpartition("=")[::2] for text in options.llama_model]
    options.llama_model = {format or "bf16": Path(path) for format, path in given}
    unknown = {*options.formats, *options.llama_model} - set(PACKED_FORMATS)
    if unknown:
        parser.error(
            f"--formats, --llama-model: some of {', '.join(PACKED_FORMATS)}, "
            f"got {', '.join(sorted(unknown))}"
        )
    torch.set_num_threads(options.threads)
    library.need().set_threads(options.threads)
    model = options.cache / "expertmesh-real-width"
    try:
        config = ensure_slice(model)
    except ValueError as error:
        parser.error(str(error))
    values: Values = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    with tempfile.TemporaryDirectory(prefix="expertmesh-bench-") as logs:
        for format in options.formats:
            engines = make_engines(options, model, config, Path(logs), format)
            run(options, engines, config, format, values)
    formats = {format: against_roofline(values, config, format) for format in options.formats}
    print(json.dumps({**report(values, options), "formats": formats}))


if __name__ == "__main__":
    main()
