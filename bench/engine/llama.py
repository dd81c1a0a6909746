"""How is llama.cpp measured? A `llama-batched-bench` process per measurement."""

import json
import subprocess
from pathlib import Path

from bench.engine.engines import PROMPT_TOKENS, Result

TIMEOUT_S = 600.0


class LlamaCpp:
    """One cell at a time; the mapped model stays in the page cache between them."""

    def __init__(self, program: str, model: Path, threads: int):
        self._command = [
            *(program, "-m", str(model), "-t", str(threads)),
            *("-c", "8192", "-b", "2048", "--output-format", "jsonl"),
        ]

    def start(self) -> None:
        """Run once, so that the first measurement does not read the disk."""
        self.measure("decode", 1, 2, seed=0)

    def measure(self, kind: str, size: int, num_tokens: int, *, seed: int) -> Result:
        """Decode of `size` sequences, or prefill of `size` tokens; `seed` is not used.

        Raises RuntimeError with the program's last lines when it fails.
        """
        if kind == "decode":
            flags = ["-npp", str(PROMPT_TOKENS), "-ntg", str(num_tokens), "-npl", str(size)]
        else:
            flags = ["-npp", str(size), "-ntg", "1", "-npl", "1"]
        done = subprocess.run(
            [*self._command, *flags], capture_output=True, text=True, timeout=TIMEOUT_S
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode or not lines:
            raise RuntimeError(f"{self._command[0]} failed: {done.stderr[-500:]}")
        answer = json.loads(lines[-1])
        return Result(
            tokens_per_s=answer["speed_tg" if kind == "decode" else "speed_pp"],
            tokens_per_cpu_s=None,
        )

    def stop(self) -> None:
        """Nothing runs between measurements."""
