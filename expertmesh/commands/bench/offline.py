"""`expertmesh bench offline`: how fast is the engine alone?"""

from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import typer

from expertmesh.commands.bench.options import Measuring, measures
from expertmesh.commands.bench.run import Bar, finish, measure
from expertmesh.console import EXIT_CODES_HELP, EXIT_USAGE, command_errors
from expertmesh.loadgen.record import Record
from moe_model.weights.load_flag import LOAD_HELP

HELP = f"""Measure the engine of `LLM.generate` in this process: no HTTP, no pools.

All prompts are submitted at once, so TTFT and E2EL include the wait for a place in the batch
(--max-num-seqs). Compare throughputs instead.

Examples:

  expertmesh bench offline --num-prompts 64 --ignore-eos

  expertmesh bench offline --model ~/models/my-m2 --dtype bf16 \\
    --max-num-seqs 32 --json

{EXIT_CODES_HELP} Also 130: ended by Ctrl-C.
"""


@measures
def offline(
    asked: Measuring,
    model: Path | None = typer.Option(
        None,
        envvar="EXPERTMESH_MODEL",
        help="Checkpoint folder. Default: the bundled demonstration model.",
    ),
    load: str = typer.Option("", envvar="EXPERTMESH_LOAD", help=f"{LOAD_HELP}."),
    dtype: str = typer.Option(
        "auto", envvar="EXPERTMESH_DTYPE", help="Dtype to compute in: auto, f32 or bf16."
    ),
    kv_memory: str = typer.Option(
        "auto", envvar="EXPERTMESH_KV_MEMORY", help="Size of the KV cache, for example 2GiB."
    ),
    max_num_seqs: int = typer.Option(
        64, envvar="EXPERTMESH_MAX_NUM_SEQS", help="Most sequences in one step."
    ),
    threads: int = typer.Option(
        0, envvar="EXPERTMESH_THREADS", help="Threads to compute with; 0: all cores."
    ),
    warmup: int = typer.Option(
        1, envvar="EXPERTMESH_WARMUP", help="Requests that are not measured, sent first."
    ),
) -> None:
    from expertmesh.loadgen.offline_bench import OfflineOptions, offline_result, run_offline
    from expertmesh.offline.connect import engine_options

    with command_errors(EXIT_USAGE):
        options = OfflineOptions(
            engine=engine_options(
                model,
                load=load,
                dtype=dtype,
                expert_dtype=None,
                linear_dtype=None,
                device=None,
                max_model_len=None,
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=None,
                kv_memory=kv_memory,
                threads=threads,
            ),
            workload=asked.workload,
            ignore_eos=asked.ignore_eos,
            temperature=asked.temperature,
            warmup=warmup,
            percentiles=asked.percentiles,
        )

    def work(records: list[Record], bar: "Bar") -> Coroutine[Any, Any, Any]:
        return run_offline(options, records, on_ready=bar.start, on_done=bar.count)

    records, interrupted = measure(work, EXIT_USAGE)
    result = offline_result(options, records)
    finish(result, records, "Offline Benchmark Result", asked.as_json, asked.plot, interrupted)
