"""How fast does the engine decode and prefill next to Transformers, and what does the split cost?

Engines, all in bfloat16 on the real-width slice (`bench/real_width.py`):
`in_process` (an attention service with its experts in it), `split` (two pools with
alternate layers), `split_expert_striped` (two pools with half of every layer's
experts), `transformers` (MiniMaxM2ForCausalLM, grouped_mm experts), and `llama_cpp`
where a `llama-batched-bench` and a GGUF of the slice are given. Rounds alternate the engines; as
many are held at once as memory allows. Medians over the rounds.

    .venv/bin/python bench/engine.py [--rounds 3] [--engines in_process,transformers]

Progress on standard error; the last line on standard output is JSON: tokens per
second by engine and batch (decode) or prompt length (prefill), the same per CPU second of all
the engine's processes (less noise than the clock on a machine with other work), and `engine_share`, the share of the time from request to last token that is neither attention nor expert calls.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.engines import Engine, Served, Transformers
from bench.llama import LlamaCpp
from bench.real_width import ensure_slice
from expertmesh.machine import usable_cores
from minimax_m2.config import ModelConfig
from rpc.memory import available_memory_bytes

ENGINES = ("in_process", "split", "split_expert_striped", "transformers")
BATCHES = (1, 4, 8, 16, 32)
LENGTHS = (256, 2048)
SHARE_BATCHES = (1, 32)
PROCESS_BYTES = 1 << 30
"""What an engine holds beyond its weights: interpreters, KV cache, activations."""

Cell = tuple[str, int]
"""("decode", sequences) or ("prefill", prompt tokens)."""


class Stage:
    """The engines that are up; the one idle longest leaves when memory is short."""

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
                raise SystemExit(f"{name} needs {self._need} bytes and {self._reserve} to spare")
            say(f"starting {name}")
            self._up.append(name)  # stopped with the others, also when it fails to start
            self._engines[name].start()
            return self._engines[name]
        self._up.append(name)
        return self._engines[name]

    def clear(self) -> None:
        for name in self._up:
            self._engines[name].stop()
        self._up.clear()


def run(options: argparse.Namespace, engines: dict[str, Engine], config: ModelConfig) -> dict:
    """All rounds; {"decode" | "prefill" | "share": {engine: {cell: [values]}}}."""
    weight_bytes = 2 * (config.attention_params + config.num_pieces * config.expert_params)
    stage = Stage(engines, weight_bytes, options.reserve_gib << 30)
    values: dict[str, Any] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    cells: list[Cell] = [("decode", batch) for batch in options.batches]
    cells += [("prefill", length) for length in options.lengths]
    try:
        finely = stage.all_fit
        for round_idx in range(options.rounds):
            names = list(engines) if round_idx % 2 == 0 else list(engines)[::-1]
            pairs = (
                [(name, cell) for cell in cells for name in names]
                if finely
                else [(name, cell) for name in names for cell in cells]
            )
            for name, (kind, size) in pairs:
                engine = stage.get(name)
                result = engine.measure(kind, size, options.tokens, seed=round_idx)
                values[kind][name][size].append(result.tokens_per_s)
                if result.tokens_per_cpu_s is not None:
                    values[f"{kind} cpu"][name][size].append(result.tokens_per_cpu_s)
                if result.engine_share is not None:
                    values["share"][name][size].append(result.engine_share)
                per_cpu_s = result.tokens_per_cpu_s
                say(
                    f"round {round_idx + 1}: {name} {kind} {size}: {result.tokens_per_s:.1f} tokens/s"
                    + (f", {per_cpu_s:.1f} per CPU second" if per_cpu_s else "")
                    + f" (load {os.getloadavg()[0]:.1f})"
                )
    finally:
        stage.clear()
    return values


def report(values: dict, options: argparse.Namespace) -> dict[str, Any]:
    """Medians, in the form the last line has."""

    def medians(kind: str, digits: int) -> dict[str, dict[str, float]]:
        return {
            name: {str(size): round(statistics.median(v), digits) for size, v in cells.items()}
            for name, cells in values[kind].items()
        }

    shares = medians("share", 4)
    counted = [
        share
        for cells in shares.values()
        for size, share in cells.items()
        if int(size) in SHARE_BATCHES
    ]
    return {
        "bench": "engine",
        "rounds": options.rounds,
        "tokens_per_stream": options.tokens,
        "cores": usable_cores(),
        "decode_tokens_per_s": medians("decode", 2),
        "prefill_tokens_per_s": medians("prefill", 1),
        "decode_tokens_per_cpu_s": medians("decode cpu", 2),
        "prefill_tokens_per_cpu_s": medians("prefill cpu", 1),
        "engine_share": max(counted, default=None),
        "engine_shares": shares,
    }


def make_engines(options: argparse.Namespace, model: Path, config: ModelConfig, logs: Path) -> dict:
    """By name, in the order asked for."""
    made: dict[str, Engine] = {}
    for name in options.engines:
        if name == "transformers":
            made[name] = Transformers(model, config.vocab_size, logs, options.threads)
        elif name == "llama_cpp":
            made[name] = LlamaCpp(options.llama_bench, options.llama_model, options.threads)
        else:
            made[name] = Served(name, model, config, logs, options.threads, options.split_threads)
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
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where the slice lies")
    parser.add_argument("--engines", type=lambda t: t.split(","), default=list(ENGINES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=24, help="decoded tokens of each sequence")
    parser.add_argument("--batches", type=numbers, default=list(BATCHES))
    parser.add_argument("--lengths", type=numbers, default=list(LENGTHS))
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of one process alone")
    parser.add_argument(
        "--split-threads", type=int, help="of each process of `split` (default: --threads)"
    )
    parser.add_argument("--reserve-gib", type=int, default=4, help="memory left to others")
    parser.add_argument("--llama-bench", default=shutil.which("llama-batched-bench"))
    parser.add_argument(
        "--llama-model",
        type=Path,
        help="the slice as GGUF (bench/slice_to_gguf.py): adds llama_cpp",
    )
    options = parser.parse_args()
    unknown = set(options.engines) - set(ENGINES)
    if unknown:
        parser.error(f"--engines: of {', '.join(ENGINES)}, got {', '.join(sorted(unknown))}")
    if options.llama_bench and options.llama_model:
        options.engines.append("llama_cpp")
    model = options.cache / "expertmesh-real-width"
    try:
        config = ensure_slice(model)
    except ValueError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory(prefix="expertmesh-bench-") as logs:
        values = run(options, make_engines(options, model, config, Path(logs)), config)
    print(json.dumps(report(values, options)))


if __name__ == "__main__":
    main()
