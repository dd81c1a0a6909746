"""llama.cpp on the same slice: one `llama-batched-bench` process after the rounds of the others."""

import argparse
import json
import subprocess
from collections.abc import Callable
from typing import Any

from bench.engines import PROMPT_TOKENS


def measure_llama(
    options: argparse.Namespace, values: dict[str, Any], say: Callable[[str], None]
) -> None:
    """Add `llama_cpp` to `values`, as many rounds as the others had."""
    command = [options.llama_bench, "-m", options.llama_model, "-t", str(options.threads),
               "-c", "8192", "-b", "2048", "--output-format", "jsonl"]  # fmt: skip
    batches, lengths = (",".join(map(str, sizes)) for sizes in (options.batches, options.lengths))
    runs = {
        "decode": ("-npp", str(PROMPT_TOKENS), "-ntg", str(options.tokens), "-npl", batches),
        "prefill": ("-npp", lengths, "-ntg", "1", "-npl", "1"),
    }
    for _ in range(options.rounds):
        for kind, flags in runs.items():
            done = subprocess.run([*command, *flags], capture_output=True, text=True, check=True)
            for line in done.stdout.splitlines():
                if not line.startswith("{"):
                    continue
                answer = json.loads(line)
                size = answer["pl"] if kind == "decode" else answer["pp"]
                speed = answer["speed_tg" if kind == "decode" else "speed_pp"]
                values[kind]["llama_cpp"][size].append(speed)
                say(f"llama_cpp {kind} {size}: {speed:.1f} tokens/s")
