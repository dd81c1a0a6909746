"""What does a decode step cost the host beside its device? With a device that only takes time.

    .venv/bin/python bench/engine/host_time.py [--rows 1,64] [--device-ms 20] [--profile]

The engine, its scheduler, outboxes and metrics are real; whole steps, as a GPU makes them, are
replaced by ones that are done after `--device-ms` and pick random tokens, with M2's numbers of
layers and experts. Every token is taken from its outbox by a task of its own. The last line is
JSON: a step less its device's time, in the tenth of the runs of ten steps that took least: other
work disturbs the rest.
"""

import argparse
import asyncio
import cProfile
import json
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from attention_svc.activations import ActivationCounts
from attention_svc.engine.engine import Engine
from attention_svc.engine.layer_stack import LayerStack
from attention_svc.engine.scheduler import Scheduler
from attention_svc.experts.in_process import InProcessTransport
from attention_svc.kv.block_pool import BlockPool
from attention_svc.kv.block_tables import BlockTables
from attention_svc.kv.cache import KvCache
from attention_svc.metrics import AttentionMetrics
from attention_svc.sequence.params import SequenceParams
from attention_svc.sequence.sequence import Sequence
from moe_model.backends.choice import choose_backend
from moe_model.maths.kv_layout import PlainLayout
from moe_model.maths.step_meta import StepMeta
from moe_model.tiny import write_tiny
from moe_model.weights.checkpoint import Checkpoint

LAYERS, EXPERTS, TOP_K, BLOCK = 62, 256, 8, 16
CONTEXT, TOKENS, RUN = 1024, 300, 10
PARAMS = SequenceParams(
    temperature=0, top_p=1, top_k=0, min_p=0, repetition_penalty=1, presence_penalty=0,
    frequency_penalty=0, logit_bias=(), seed=0, max_tokens=TOKENS, min_tokens=0,
    stop_token_ids=frozenset(), ignore_eos=True, logprobs=False, top_logprobs=0,
)  # fmt: skip


class TimedStep:
    """See WholeStep."""

    def __init__(self, meta: StepMeta, device_s: float, begin_s: float, vocab_size: int):
        num_rows, num_picked = meta.num_rows, meta.logit_rows_B.shape[0]
        generator = np.random.default_rng(0)
        self.hidden_TD = torch.zeros((num_rows, 8))
        self.logits_BV = torch.zeros((num_picked, vocab_size))
        self._picked = torch.from_numpy(generator.integers(0, vocab_size, num_picked))
        shape = (LAYERS, num_rows, TOP_K)
        self._ids = generator.integers(0, EXPERTS, shape, dtype=np.int32)
        self._device_s, self.done_s = device_s, begin_s + device_s

    def wait(self) -> None:
        time.sleep(max(0.0, self.done_s - time.perf_counter()))

    def device_s(self) -> float:
        return self._device_s

    def is_done(self) -> bool:
        return time.perf_counter() >= self.done_s

    def picked(self) -> list[int]:
        found: list[int] = self._picked.tolist()
        return found

    def chosen(self) -> np.ndarray:
        return self._ids.copy()


class TimedSteps:
    """See WholeSteps. A step begins when it is asked for, or when the one before it ends."""

    def __init__(self, device_s: float, vocab_size: int):
        self._device_s, self._vocab_size = device_s, vocab_size
        self._free_s = 0.0

    def warm_up(self, most_rows: int, most_decode: int, num_controls: int) -> Iterator[int]:
        yield from ()

    def is_short(self, meta: StepMeta, controls: np.ndarray | None = None) -> bool:
        return meta.is_decode

    def start(self, meta: StepMeta, controls: np.ndarray | None = None) -> TimedStep:
        device_s = self._device_s if meta.is_decode else 0.0
        begin_s = max(time.perf_counter(), self._free_s)
        step = TimedStep(meta, device_s, begin_s, self._vocab_size)
        self._free_s = step.done_s
        return step


class TimedBackend:
    """A backend but for its whole steps."""

    def __init__(self, whole: TimedSteps):
        self._backend, self._whole = choose_backend(torch.float32), whole

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def attention(self, *given: Any) -> Any:
        """As on a GPU: blocks need not be cleared."""
        made = self._backend.attention(*given)
        made.reads_unwritten = False
        return made

    def whole_steps(self, *_: object) -> TimedSteps:
        return self._whole


async def measure(folder: Path, rows: int, device_s: float, profile: cProfile.Profile) -> float:
    """Milliseconds of a step less its device's: a tenth of the runs take less."""
    checkpoint = Checkpoint.open(folder)
    config = checkpoint.config
    backend: Any = TimedBackend(TimedSteps(device_s, config.vocab_size))
    num_blocks = rows * ((CONTEXT + TOKENS) // BLOCK + 2)
    with ThreadPoolExecutor(1) as thread:
        transport = InProcessTransport(
            checkpoint, backend, weight_format="f32", compute_thread=thread, inline_rows=64
        )
        cache = KvCache(
            PlainLayout.of(config, torch.float32),
            num_layers=config.num_layers,
            num_blocks=num_blocks,
            block_size=BLOCK,
            device=torch.device("cpu"),
        )
        stack = LayerStack(
            checkpoint, cache, transport, ActivationCounts(LAYERS, EXPERTS),
            backend=backend, linear_format="f32", compute_thread=thread,
        )  # fmt: skip
        scheduler = Scheduler(
            BlockTables(BlockPool(num_blocks), block_size=BLOCK),
            max_batch_tokens=8192, max_running=rows, max_waiting=rows, max_waiting_tokens=1 << 20,
        )  # fmt: skip
        engine = Engine(
            stack, scheduler, AttentionMetrics(), max_model_len=4096, expert_timeout_s=10
        )
        arrivals: list[float] = []

        async def stream(index: int) -> None:
            prompt = np.random.default_rng(index).integers(0, config.vocab_size, CONTEXT).tolist()
            sequence = Sequence(
                request_id=str(index),
                prompt_ids=prompt,
                output_ids=[],
                params=PARAMS,
                stop_ids=frozenset(),
            )
            engine.add(sequence)
            end = None
            while end is None:
                _, end = await sequence.outbox.take()
                if not index:
                    arrivals.append(time.perf_counter())

        streams = [asyncio.create_task(stream(index)) for index in range(rows)]
        running = asyncio.create_task(engine.run())
        while len(arrivals) < TOKENS // 4 and not running.done():
            await asyncio.sleep(0.01)
        profile.enable()
        await asyncio.wait(streams, return_when=asyncio.FIRST_EXCEPTION, timeout=60)
        profile.disable()
        for stream_ in streams:
            stream_.result()
        running.cancel()
        engine.close()
    runs = np.diff(arrivals[TOKENS // 4 : -1 : RUN]) / RUN
    few, *_ = statistics.quantiles(runs.tolist(), n=10)
    return (few - device_s) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="1,8,64")
    parser.add_argument("--device-ms", type=float, default=20.0)
    parser.add_argument("--profile", action="store_true", help="where the time goes, on stderr")
    arguments = parser.parse_args()
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_tiny(Path(folder), seed=1)
        for rows in map(int, arguments.rows.split(",")):
            profile = cProfile.Profile() if arguments.profile else _NoProfile()
            made = asyncio.run(measure(Path(folder), rows, arguments.device_ms / 1e3, profile))
            found[str(rows)] = round(made, 3)
            print(f"{rows} rows: {made:.3f} ms", file=sys.stderr)
            if arguments.profile:
                pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(45)
    print(json.dumps({"host_ms": found, "device_ms": arguments.device_ms}))


class _NoProfile:
    def enable(self) -> None: ...

    def disable(self) -> None: ...


if __name__ == "__main__":
    main()
